//! Node images from a gateway.

use identity::{BlobHash, Code, limits::BLOB_PIECE_BYTES};
use org_trust::{BlobReply, BlobRequest};

use crate::failure::Outcome;

use super::bench::*;

async fn fetched(bench: &Bench, first: u32) -> Outcome<Vec<u8>> {
    let mut images = bench.images().await?;
    let outline = images.outline(outline().hash(), outline().bytes()).await?;
    let mut got = Vec::new();
    images
        .pieces(&outline, first, |piece| {
            got.extend_from_slice(piece);
            Ok(())
        })
        .await?;
    images.close().await;
    Ok(got)
}

#[tokio::test]
async fn a_node_image_is_fetched_with_the_boot_key_from_the_piece_that_is_missing() {
    local(async |bench| {
        bench.join().await.unwrap();
        let mut session = bench.images().await.unwrap();
        assert_eq!(session.wanted().await.unwrap().unwrap(), b"signed");
        assert!(fetched(&bench, 0).await.unwrap() == image());
        assert!(fetched(&bench, 19).await.unwrap() == image()[19 * BLOB_PIECE_BYTES..]);
        bench.held.borrow_mut().images = |_| vec![BlobReply::Refused(Code::NodeImageNotHeld)];
        assert_eq!(bench.images().await.unwrap().wanted().await.unwrap(), None);
        assert_eq!(fetched(&bench, 0).await.unwrap_err().code, Code::NodeImageNotHeld);
        bench.held.borrow_mut().barred = Some(Code::Revoked);
        assert_eq!(bench.images().await.unwrap_err().code, Code::Revoked);
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_sends_another_image_is_refused_at_the_first_piece() {
    local(async |bench| {
        bench.join().await.unwrap();
        bench.held.borrow_mut().images = |request| {
            let mut replies = images(request);
            if let (BlobRequest::Pieces { .. }, [_, BlobReply::Piece(piece), ..]) =
                (request, &mut replies[..])
            {
                piece[100] ^= 1;
            }
            replies
        };
        let mut session = bench.images().await.unwrap();
        let outline = session.outline(outline().hash(), outline().bytes()).await.unwrap();
        let mut taken = 0;
        let refused = session.pieces(&outline, 0, |_| {
            taken += 1;
            Ok(())
        });
        assert_eq!(refused.await.unwrap_err().code, Code::NodeImageDamaged);
        assert_eq!(taken, 1, "nothing of the wrong one or after it");
        // An outline of another image, and one that is cut short.
        assert_eq!(
            bench.images().await.unwrap().outline(BlobHash([1; 32]), outline.bytes()).await.unwrap_err().code,
            Code::NodeImageDamaged
        );
        bench.held.borrow_mut().images = |_| vec![BlobReply::Nodes(vec![0; 32])];
        assert_eq!(fetched(&bench, 0).await.unwrap_err().code, Code::NodeImageDamaged);
    })
    .await;
}
