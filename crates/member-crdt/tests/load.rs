//! What a file is worth when its pieces are verified elsewhere.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod kit;

use kit::{Machine, Who, World, key, of_size};
use member_crdt::{MemberState, Replica, Unchecked};
use org_trust::{Admit, Assurance, EnrolRequest, Redemption};

#[test]
fn a_piece_that_nobody_verified_is_not_in_the_replica() {
    let world = of_size(5);
    let file = world.filled().save().unwrap();
    let nobody = Replica::load_with(&file, &world.org, |_| Vec::new()).unwrap().replica;
    assert_eq!((nobody.count(), nobody.roster().good().count()), (1, 0), "the first settings alone");
    let spread = |pieces: Vec<Unchecked>| {
        let all = pieces.into_iter().map(|piece| std::thread::spawn(|| piece.check()));
        all.collect::<Vec<_>>().into_iter().map(|piece| piece.join().unwrap()).collect()
    };
    let whole = Replica::load_with(&file, &world.org, spread).unwrap();
    assert_eq!(whole.replica.heads(), world.filled().heads());
    assert_eq!(whole.replica.roster().good().count(), 5);
}

#[test]
fn an_admission_that_the_invite_did_not_sign_counts_as_little_from_a_file_as_from_a_peer() {
    let mut world = World::new(1, 1, 1);
    let (own, other) = (world.invite(0, 0, 9), world.invite(0, 0, 9));
    world.admit(own, Machine::new(1));
    // Signed by the secret of one invite, filed under the other.
    let forged = member_of_other(&world, own, other);
    world.say(Who::Gateway(0), forged);
    let live = world.filled();
    let loaded = Replica::load(&world.filled().save().unwrap(), &world.org).unwrap();
    assert!(loaded.refused.is_empty(), "kept as it was kept: {:?}", loaded.refused);
    for replica in [&live, &loaded.replica] {
        let roster = replica.roster();
        assert_eq!(roster.good().count(), 1);
        let honest = roster.get(&key(Who::Node(1)).public()).unwrap();
        assert!(matches!(honest.state, MemberState::Good));
        assert!(roster.get(&key(Who::Node(2)).public()).is_none());
    }
    assert_eq!(live.roster_digest(), loaded.replica.roster_digest());
}

fn member_of_other(world: &World, claimed: usize, secret: usize) -> Admit {
    let (invite, gateway) = world.invites[claimed];
    let secret = kit::invite_key(u8::try_from(secret).unwrap());
    let redemption = Redemption { invite, key: &secret, redeemer: key(Who::Gateway(gateway)).public() };
    Machine::new(2).with_keys(|keys| {
        let name = identity::Name::parse("forged").unwrap();
        EnrolRequest::sign(&world.org, keys, redemption, name, Assurance::File, [0; 32]).claimed().clone()
    })
}
