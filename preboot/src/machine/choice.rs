//! Which node image starts: pure, from what is in the slots and what is wanted.

use org_trust::Generation;

use super::slots::{Kept, Slot, Tries};

/// Those in the slots in the order in which they are to be tried.
///
/// The one that is wanted, unless it was started as often as that may be without becoming ready. Then the
/// last that was ready. When none was, there is nothing to lose, and the newest is started again.
pub(crate) fn order(mut kept: Vec<Kept>, wanted: Option<&Generation>) -> Vec<Kept> {
    kept.sort_by_key(|kept| {
        let rank = match kept.tries {
            Tries::Ready | Tries::Left(1..) if wanted.is_none_or(|wanted| *wanted == kept.generation) => 0,
            Tries::Ready => 1,
            Tries::Left(1..) => 2,
            Tries::Left(0) => 3,
        };
        (rank, core::cmp::Reverse(kept.generation.number))
    });
    kept
}

/// Those that were ready, the newest first: what starts when nobody could be asked.
pub(crate) fn good(mut kept: Vec<Kept>) -> Vec<Kept> {
    kept.retain(|kept| kept.tries == Tries::Ready);
    kept.sort_by_key(|kept| core::cmp::Reverse(kept.generation.number));
    kept
}

/// The number of the release that is wanted and never became ready, when another starts instead. Where
/// nobody says what is wanted, it is one that was.
pub(crate) fn given_up(kept: &[Kept], starts: &Generation, wanted: Option<&Generation>) -> Option<u32> {
    let exhausted = kept.iter().filter(|kept| {
        kept.tries == Tries::Left(0)
            && kept.generation != *starts
            && wanted.is_none_or(|wanted| *wanted == kept.generation)
    });
    exhausted.map(|kept| kept.generation.number).max()
}

/// The slot whose image is of the least use.
pub(crate) fn spare(kept: &[Kept]) -> Slot {
    let worth = |slot: &Slot| {
        let there = kept.iter().find(|kept| kept.slot == *slot)?;
        let rank = match there.tries {
            Tries::Left(0) => 0,
            Tries::Left(1..) => 1,
            Tries::Ready => 2,
        };
        Some((rank, there.generation.number))
    };
    let [a, b] = Slot::BOTH;
    if worth(&b) < worth(&a) { b } else { a }
}

/// How far the floor moves: to what the newest image that was ready asks for.
pub(crate) fn floor(kept: &[Kept]) -> u32 {
    let ready = kept.iter().filter(|kept| kept.tries == Tries::Ready);
    ready.map(|kept| kept.generation.minimum).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(number: u32) -> Generation {
        let fill = u8::try_from(number).unwrap();
        Generation { number, image: [fill; 32], image_bytes: 1, minimum: number.saturating_sub(1) }
    }

    fn kept(a: (u32, Tries), b: (u32, Tries)) -> Vec<Kept> {
        [(Slot::A, a), (Slot::B, b)]
            .into_iter()
            .map(|(slot, (number, tries))| Kept { slot, generation: generation(number), tries })
            .collect()
    }

    fn first(kept: Vec<Kept>, wanted: Option<u32>) -> u32 {
        order(kept, wanted.map(generation).as_ref())[0].generation.number
    }

    use Tries::{Left, Ready};

    #[test]
    fn a_broken_release_is_given_up_after_its_tries_for_the_last_that_was_ready() {
        for left in [3, 2, 1] {
            let kept = kept((4, Ready), (5, Left(left)));
            assert_eq!(first(kept.clone(), Some(5)), 5);
            assert_eq!(given_up(&kept, &generation(5), Some(&generation(5))), None);
        }
        let kept = kept((4, Ready), (5, Left(0)));
        assert_eq!(first(kept.clone(), Some(5)), 4);
        assert_eq!(given_up(&kept, &generation(4), Some(&generation(5))), Some(5));
        assert_eq!(given_up(&kept, &generation(4), None), Some(5));
        assert_eq!(given_up(&kept, &generation(4), Some(&generation(4))), None, "nobody wants it any more");
    }

    #[test]
    fn what_is_wanted_starts_also_when_it_is_older() {
        assert_eq!(first(kept((5, Ready), (4, Ready)), Some(4)), 4);
        assert_eq!(first(kept((5, Ready), (4, Left(3))), Some(4)), 4);
        assert_eq!(first(kept((5, Ready), (4, Ready)), Some(6)), 5, "it could not be fetched");
        assert_eq!(first(kept((5, Left(2)), (4, Ready)), Some(6)), 4, "the one that is known to be good");
        assert_eq!(first(kept((5, Left(2)), (4, Ready)), None), 5, "nobody says; it was wanted before");
        assert_eq!(first(kept((5, Left(0)), (4, Ready)), None), 4);
    }

    #[test]
    fn a_number_that_was_used_twice_is_not_mistaken() {
        let mut kept = kept((5, Ready), (4, Ready));
        kept[0].generation.image = [99; 32];
        assert_eq!(first(kept, Some(5)), 5, "the good one goes on until the other is there");
        let twice = [(Slot::A, [99; 32]), (Slot::B, [5; 32])].map(|(slot, image)| Kept {
            slot,
            generation: Generation { image, ..generation(5) },
            tries: Left(1),
        });
        assert_eq!(order(twice.to_vec(), Some(&generation(5)))[0].slot, Slot::B);
    }

    #[test]
    fn with_nothing_to_lose_a_machine_goes_on_trying() {
        assert_eq!(first(kept((4, Left(0)), (5, Left(0))), Some(5)), 5);
        assert_eq!(first(kept((4, Left(1)), (5, Left(0))), Some(5)), 4);
        assert_eq!(order(Vec::new(), None), []);
    }

    #[test]
    fn without_a_gateway_only_what_was_ready_starts() {
        let numbers = |kept| good(kept).iter().map(|kept| kept.generation.number).collect::<Vec<_>>();
        assert_eq!(numbers(kept((4, Ready), (5, Ready))), [5, 4]);
        assert_eq!(numbers(kept((4, Ready), (5, Left(3)))), [4]);
        assert_eq!(numbers(kept((4, Left(2)), (5, Left(0)))), [0; 0]);
    }

    #[test]
    fn a_new_image_never_takes_the_place_of_the_one_that_is_good() {
        assert_eq!(spare(&[]), Slot::A);
        for (a, b, replaced) in [
            ((4, Ready), (5, Left(0)), Slot::B),
            ((4, Ready), (5, Left(3)), Slot::B),
            ((4, Ready), (3, Left(3)), Slot::B),
            ((4, Left(3)), (5, Left(0)), Slot::B),
            ((4, Ready), (5, Ready), Slot::A),
            ((6, Ready), (5, Ready), Slot::B),
        ] {
            assert_eq!(spare(&kept(a, b)), replaced, "{a:?} {b:?}");
        }
        let one = kept((4, Ready), (5, Ready));
        assert_eq!(spare(&one[..1]), Slot::B);
        assert_eq!(spare(&one[1..]), Slot::A);
    }

    #[test]
    fn the_floor_moves_for_an_image_that_was_ready_and_for_no_other() {
        assert_eq!(floor(&kept((4, Left(2)), (9, Left(0)))), 0);
        assert_eq!(floor(&kept((4, Ready), (9, Left(3)))), 3);
        assert_eq!(floor(&kept((4, Ready), (9, Ready))), 8);
    }
}
