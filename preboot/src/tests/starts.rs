//! Who joins and who starts, and who is refused.

use std::fs;

use identity::{CharterId, Code};
use org_trust::{Record, Records, TrustBundle};

use super::bench::*;

#[tokio::test]
async fn a_machine_joins_once_and_starts_by_its_boot_key_from_then_on() {
    local(async |bench| {
        bench.join().await.unwrap();
        let admit = bench.file("handover/admit");
        assert_eq!(admit, bench.held.borrow().admits.values().next().unwrap().bytes());
        assert_eq!(bench.handed_over().len(), 3, "one of the org's settings, the invite, the admission");
        TrustBundle::read(&bench.file("handover/bundle.pem")).unwrap();
        let keys = bench.keys();
        // musterd takes the hand-over away.
        bench.remove("handover");
        bench.run(&[]).await.unwrap();
        assert_eq!(bench.file("handover/admit"), admit);
        assert_eq!(bench.keys(), keys);
        assert_eq!(bench.held.borrow().asked, 1);
    })
    .await;
}

#[tokio::test]
async fn after_a_power_cut_at_any_step_the_same_keys_get_the_same_admission() {
    local(async |bench| {
        bench.join().await.unwrap();
        let (keys, admit) = (bench.keys(), bench.file("handover/admit"));
        // Before the hand-over; before the admission was kept; before the node's half was sealed would
        // need a second machine, see below.
        bench.remove("handover");
        bench.join().await.unwrap();
        bench.remove("handover");
        bench.remove("preboot/admit");
        bench.join().await.unwrap();
        assert_eq!((bench.keys(), bench.file("handover/admit")), (keys, admit));
        assert_eq!(bench.held.borrow().admits.len(), 1);
        // What an interrupted replacement leaves beside is no obstacle.
        fs::create_dir(bench.state.path().join("handover.new")).unwrap();
        fs::create_dir(bench.state.path().join("preboot.new")).unwrap();
        bench.run(&[]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn between_the_two_sealed_objects_only_the_missing_one_is_made() {
    local(async |bench| {
        bench.held.borrow_mut().barred = Some(Code::UnknownKey);
        bench.join().await.unwrap_err();
        let [boot, node] = bench.keys();
        bench.remove("keys/node.key");
        bench.remove("preboot/admit");
        bench.held.borrow_mut().barred = None;
        bench.held.borrow_mut().admits.clear();
        bench.join().await.unwrap();
        assert_eq!(bench.keys()[0], boot);
        assert_ne!(bench.keys()[1], node);
        // The other way round somebody took it away.
        bench.remove("keys/boot.key");
        bench.remove("preboot/admit");
        assert_eq!(bench.join().await.unwrap_err().code, Code::KeysMissing);
        assert!(!bench.state.path().join("keys/boot.key").exists());
    })
    .await;
}

#[tokio::test]
async fn lost_keys_of_a_member_are_never_made_anew() {
    local(async |bench| {
        bench.join().await.unwrap();
        bench.remove("keys");
        assert_eq!(bench.join().await.unwrap_err().code, Code::KeysMissing);
        assert!(!bench.state.path().join("keys").exists());
    })
    .await;
}

#[tokio::test]
async fn an_invite_of_another_org_is_refused_and_changes_nothing() {
    local(async |bench| {
        bench.join().await.unwrap();
        let (_, other) = org(4, bench.address);
        fs::write(&bench.invite, other).unwrap();
        let before = (bench.keys(), bench.file("preboot/charters"));
        assert_eq!(bench.join().await.unwrap_err().code, Code::InviteOtherOrg);
        assert_eq!((bench.keys(), bench.file("preboot/charters")), before);
    })
    .await;
}

#[tokio::test]
async fn a_revoked_machine_is_told_so_and_hands_nothing_over() {
    local(async |bench| {
        bench.join().await.unwrap();
        bench.remove("handover");
        bench.held.borrow_mut().barred = Some(Code::Revoked);
        let failure = bench.run(&[]).await.unwrap_err();
        assert_eq!((failure.code, failure.code.exit_status()), (Code::Revoked, 77));
        assert!(!bench.state.path().join("handover").exists());
    })
    .await;
}

#[tokio::test]
async fn a_gateway_set_back_behind_the_anchor_is_refused() {
    local(async |bench| {
        let old = bench.held.borrow().chain.clone();
        bench.held.borrow_mut().extend();
        bench.join().await.unwrap();
        assert_eq!(chain_length(&bench.file("handover/charters")), 2);
        // The disk is set back too; the anchor beside the boot key is not.
        bench.held.borrow_mut().chain = old;
        let first: CharterId = bench.held.borrow().chain.head().id();
        let genesis = bench.held.borrow().chain.genesis().clone();
        let charters = Records::encode(&[Record::from(&genesis)]).unwrap();
        fs::write(bench.state.path().join("preboot/charters"), charters).unwrap();
        assert_eq!(bench.held.borrow().chain.genesis().id(), first);
        assert_eq!(bench.run(&[]).await.unwrap_err().code, Code::GatewayBehind);
        bench.held.borrow_mut().extend();
        bench.run(&[]).await.unwrap();
    })
    .await;
}

fn chain_length(charters: &[u8]) -> usize {
    Records::decode_all(charters).unwrap().len()
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    local(async |bench| {
        assert_eq!(bench.run(&[]).await.unwrap_err().code, Code::NotEnrolled);
        assert_eq!(bench.run(&["--invite", "/nowhere"]).await.unwrap_err().code, Code::FileProblem);
        let line = fs::read_to_string(&bench.invite).unwrap();
        for (text, code) in [
            (line[..line.len() - 5].to_owned(), Code::InviteMalformed),
            ("hello".to_owned(), Code::InviteMalformed),
        ] {
            fs::write(&bench.invite, text).unwrap();
            assert_eq!(bench.join().await.unwrap_err().code, code);
        }
        assert!(!bench.state.path().join("keys").exists(), "nothing was made");
        fs::write(&bench.invite, line).unwrap();
        let bundle = bench.invite.with_extension("pem");
        fs::write(&bundle, "junk").unwrap();
        let flags = ["--invite", bench.invite.to_str().unwrap(), "--bundle", bundle.to_str().unwrap()];
        assert_eq!(bench.run(&flags).await.unwrap_err().code, Code::BundleInvalid);
        // A pinned bundle of another CA stands above the invite's.
        let (other, _) = org(9, bench.address);
        let der = other.chain.head().charter().tls_cas[0].certificate.clone();
        fs::write(&bundle, TrustBundle::from_certificates([der]).unwrap().to_pem()).unwrap();
        // The org's own settings name the right CA, so it is found even so.
        bench.run(&flags).await.unwrap();
    })
    .await;
}
