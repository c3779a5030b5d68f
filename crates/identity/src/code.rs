//! Every refusal and failure a person can meet, once: number, name, what it means, what to do.
//!
//! Numbers never change their meaning and are never used again. The thousands tell where to look:
//! 1 handshake, 14 standing, 2 changes to the member list, 3 invites and enrolment, 4 keys and TPM,
//! 5 reaching a gateway, 6 this machine's daemon, 7 configuration and usage (from 7010 on what `muster debug
//! connection` tells apart, from 7100 on `muster lab`), 8 images and booting, 9 programs behind muster, and who may reach them.

use core::fmt;

macro_rules! codes {
    ($($name:ident = $number:literal, exit $exit:literal, $title:literal, $cause:literal, $remedy:literal;)*) => {
        /// A code `MU-nnnn`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The number behind `MU-`.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// One line: what happened.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// Why it happens.
            #[must_use]
            pub const fn cause(self) -> &'static str {
                match self { $(Self::$name => $cause,)* }
            }

            /// What to do about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }

            /// The exit status of a command that ends with it (sysexits.h where it has a word for it).
            #[must_use]
            pub const fn exit_status(self) -> u8 {
                match self { $(Self::$name => $exit,)* }
            }
        }
    };
}

codes! {
    HelloMalformed = 1001, exit 76, "the opening message is malformed",
        "The other side sent a first message that does not follow docs/spec/conn-auth.md.",
        "Check that both sides run muster and that nothing in between rewrites the connection.";
    ChallengeMalformed = 1002, exit 76, "the answer to the opening message is malformed",
        "The server answered, but not with a conn_auth challenge.",
        "Check the address and port: something else may be listening there.";
    ProofMalformed = 1003, exit 76, "the proof is malformed",
        "The third message of the handshake does not follow docs/spec/conn-auth.md.",
        "Check that both sides run the same major version of muster.";
    VerdictMalformed = 1004, exit 76, "the last message of the handshake is malformed",
        "The fourth message of the handshake does not follow docs/spec/conn-auth.md.",
        "Check that both sides run the same major version of muster.";
    ServerProofWrong = 1005, exit 77, "the server did not prove its key",
        "The signature of the server does not hold for this connection. Somebody may be relaying it.",
        "Do not retry blindly. Find out what stands between this machine and the server.";
    ClientProofWrong = 1006, exit 77, "the client did not prove its key",
        "The signature of the client does not hold for this connection. Somebody may be relaying it.",
        "Find out what stands between the two machines; a copied state directory does not cause this.";
    WrongServer = 1007, exit 77, "another machine answered",
        "The server that answered is not the one that was asked for.",
        "Check whether the machine was enrolled anew; `muster member show` prints its key.";
    BindingMismatch = 1008, exit 77, "the handshake names another kind of channel",
        "A handshake made for TLS arrived in a tunnel, or the reverse.",
        "Nothing of ours does this. Treat the sender as hostile.";
    HandshakeTimeout = 1009, exit 75, "the handshake took too long",
        "The other side did not finish the handshake within its deadline.",
        "Check packet loss and load; `muster ping NODE` shows the time of each step.";
    TooManyUnproven = 1010, exit 75, "too many connections that prove nothing",
        "All places for unproven connections are taken, and this source holds the most of them.",
        "Look for a flood of connections; members that proved themselves before are served first.";
    VersionUnsupported = 1011, exit 76, "another version of the handshake",
        "The other side speaks a version of conn_auth that this release does not.",
        "Upgrade the older side. There is no fallback on purpose.";
    UpgradeRefused = 1012, exit 76, "the server refused the WebSocket",
        "The HTTP answer is not the upgrade that muster expects.",
        "Check the address; a web proxy in between must pass WebSockets through unchanged.";
    RefusedWithoutReason = 1013, exit 77, "refused",
        "The server refused and does not tell strangers why.",
        "On the server, `muster debug why REF` prints the reason.";
    ConnectionLost = 1014, exit 75, "the connection ended early",
        "The other side closed the connection, or the network did.",
        "Try again; if it repeats, read the log of the other side.";
    FrameMalformed = 1015, exit 76, "a message that the session does not carry",
        "The other side sent a message that is too long or of another kind than the action has.",
        "Check that both sides run the same major version of muster.";

    UnknownKey = 1401, exit 77, "not a member",
        "The key is proved but no member of this org has it.",
        "Join with an invite. If it has just joined, try again in a few seconds.";
    ApprovalPending = 1402, exit 75, "waiting for an admin's approval",
        "The machine joined with an invite that wants each machine approved, and no admin has done so yet.",
        "An admin runs `muster pending approve`; `muster pending list` shows who waits. The machine asks again by itself for about an hour, then run the same command again.";
    Revoked = 1403, exit 77, "revoked",
        "An admin revoked this machine. A revoked key never comes back.",
        "Make new keys: `muster leave`, then `muster join` with a new invite.";
    Suspended = 1404, exit 77, "suspended",
        "An admin suspended this machine. It keeps its keys and its place.",
        "Nothing on the machine: it comes back by itself once an admin resumes it.";
    Left = 1405, exit 77, "left the org",
        "This machine left the org by `muster leave`. Its key never comes back.",
        "Join again with a new invite.";
    KeyConflict = 1406, exit 77, "a key that two members claim",
        "Two members were admitted with the same key in them, so neither is one.",
        "Revoke both and enrol the machines again, each with keys of its own.";
    ActionNotAllowed = 1407, exit 77, "not allowed to do this",
        "The key is known but this action is not for its holder, or not over this kind of channel.",
        "`muster member show NODE` lists what a member may do.";
    ActionUnknown = 1408, exit 77, "no such action here",
        "The server has no action of that name.",
        "Check the spelling, and that both sides run releases that know it.";
    TunnelMismatch = 1409, exit 77, "the tunnel belongs to another member",
        "The key that was proved is not the one whose tunnel carried the connection.",
        "Nothing of ours does this. Treat the sender as hostile.";
    NotTheGateway = 1410, exit 77, "this gateway does not act for the invite",
        "The invite names another gateway.",
        "Use the address printed by `muster invite inspect`.";
    Busy = 1411, exit 75, "busy",
        "The member has as many sessions of this kind as it serves.",
        "Nothing: another member is tried by itself.";
    ShuttingDown = 1412, exit 75, "shutting down",
        "The daemon on the other side is stopping.",
        "Try again when it is back.";
    SessionReplaced = 1413, exit 75, "replaced by a newer session",
        "The same member opened the same kind of session again.",
        "Nothing, unless it repeats: then two machines may hold one key.";
    HealFirst = 1414, exit 75, "comparing member lists first",
        "The machine has just started, slept or lost contact, and hears other members before it serves anybody.",
        "Nothing: it takes at most five seconds, and muster tries again by itself.";
    KeyRetired = 1415, exit 77, "a key that its machine has replaced",
        "The machine has newer keys and ended this one.",
        "Nothing if this is an old copy. If it is the machine itself, it was restored from a backup: join it again.";
    ListStale = 1416, exit 75, "the member list may be out of date",
        "The machine has not been able to compare its member list with another member for too long.",
        "Let it reach other members; `[members] on_stale` in its settings says what it does until then.";
    Unsettled = 1417, exit 75, "a change that decides this is still missing",
        "Of a key that lost its role, or under a cancelled invite, all counts up to a change that the org's settings or an admin named, and that change has not arrived here: whether this machine is a member is not known yet. Member lists are compared with it, and nothing else is done.",
        "Nothing while other members are in reach: the missing change comes from them. If nobody has it, the admin who signed it hands it in again with the next command.";

    ChangeMalformed = 2001, exit 65, "a change is malformed",
        "The bytes are not a change to the member list in its one encoding.",
        "The sender is broken or hostile; its session was closed and nothing was stored.";
    ChangeBadSignature = 2002, exit 65, "a change with a wrong signature",
        "The signature does not belong to the author the change names, or it was made for another org.",
        "The sender is broken or hostile; its session was closed and nothing was stored.";
    ChangeNotAuthorised = 2003, exit 77, "the author may not make this change",
        "The author's key does not hold the role that this kind of change needs.",
        "`muster org show` lists who holds which role.";
    ChangeBroken = 2004, exit 65, "a change out of order",
        "The change does not continue what its author signed before.",
        "If this is your own key: run the command again; it fetches its own last change first.";
    AlreadyRevoked = 2005, exit 0, "already revoked by this admin",
        "This admin key revoked that machine before.",
        "Nothing to do.";
    NoSuchMember = 2006, exit 65, "no such member",
        "No member has this name or a key that begins so.",
        "`muster member list` shows all names and keys.";
    AmbiguousMember = 2007, exit 65, "several members match",
        "More than one member has this name or a key that begins so.",
        "Give more digits of the key, as `muster member list` prints them.";
    CoverageIncomplete = 2008, exit 75, "not every member has applied it yet",
        "Some members have not confirmed the change; they may be off or out of reach.",
        "They apply it as soon as they reach any up-to-date member. Run the command again to see the rest.";
    NoSuchInvite = 2009, exit 65, "no such invite",
        "No invite of this org has that id.",
        "`muster invite list` shows all invites.";
    AdminKeyUnknown = 2010, exit 77, "this admin key is not one of the org's",
        "The org's settings do not name this key as an admin.",
        "Check that the key file belongs to this org: `muster org show`.";
    ForkDetected = 2011, exit 65, "one author signed two different changes at one place",
        "Two machines use one admin or gateway key, or the key is stolen.",
        "Find out who holds the key. Both changes are kept as proof.";
    NoSuchChange = 2012, exit 65, "no such change",
        "This machine holds no change with that id.",
        "Copy the id again; if the change is new, wait until this machine has heard of it.";
    CloneSuspected = 2013, exit 65, "two machines use one key",
        "What a member reports comes from two starts of muster at once: its key was copied, or its disk restored.",
        "If nobody restored that machine from a copy, revoke it and admit it again with new keys.";
    ChangeUnheard = 2014, exit 75, "no other member has heard of the change",
        "The change is stored on the machine where it was handed in. That machine is in contact with no other member, or is no member itself any more, so nobody else knows of the change yet.",
        "Hand it in at another member: run the same command on another machine, or where no musterd runs, so that it goes to a gateway. What was signed already is sent again and not signed twice.";
    NoSuchRole = 2030, exit 65, "no such admin or gateway",
        "The org's settings name nobody like that in this role.",
        "`muster admin list` and `muster gateway list` show all.";
    GatewayRequestInvalid = 2031, exit 65, "the gateway's request does not hold",
        "It is not the line that `muster gateway init` printed, or a member of this org did not sign it.",
        "Run `muster gateway init` on the member again and copy the whole line.";

    InviteMalformed = 3001, exit 65, "the invite is not readable",
        "The text is not an invite, or a part of it was lost when it was copied.",
        "Copy the whole line again, or use the file from `muster invite create --out FILE`.";
    InviteOtherOrg = 3002, exit 65, "the invite belongs to another org",
        "This machine is set up for one org and the invite names another.",
        "Ask for an invite of this org, or run `muster leave` first.";
    InviteUnknown = 3003, exit 77, "the gateway does not know the invite",
        "The invite has not reached the gateway, or its secret is wrong.",
        "Wait some seconds and try again; then ask for a new invite.";
    InviteUsedUp = 3004, exit 77, "the invite is used up",
        "As many machines as it allows have joined with it.",
        "Ask for a new invite: `muster invite create`.";
    InviteCancelled = 3005, exit 77, "the invite was cancelled",
        "An admin cancelled it.",
        "Ask for a new invite: `muster invite create`.";
    InviteExpired = 3006, exit 77, "the invite has expired",
        "Its date has passed by the gateway's clock.",
        "Ask for a new invite: `muster invite create --expires 7d`.";
    EnrolMalformed = 3007, exit 76, "the enrolment request is malformed",
        "The request does not follow docs/spec/wire.md.",
        "Check that both sides run the same major version of muster.";
    EnrolKeyUnproven = 3008, exit 77, "a key in the enrolment request is not proved",
        "One of the three keys, or the invite's, did not sign the request.",
        "Nothing of ours does this. Treat the sender as hostile.";
    EnrolKeyTaken = 3009, exit 77, "a key in the enrolment request belongs to another member",
        "A key may stand for one member only.",
        "Make new keys: remove the state directory of a machine that was copied, then join again.";
    AlreadyEnrolled = 3010, exit 65, "this machine has joined already",
        "There are keys of a member in the state directory.",
        "To join another org, run `muster leave` first.";
    InviteBroken = 3011, exit 65, "the invite contradicts itself",
        "Its parts do not belong together: settings, signature or addresses of different orgs.",
        "Do not use it. Ask the admin for a new one, over a channel you trust.";
    AttestationRequired = 3012, exit 77, "the invite asks for a TPM's word",
        "It was made with --attest or --ek, and the machine keeps its keys in files or sent no word of a TPM.",
        "Join with keys in the TPM and a muster-preboot of this release, or ask for an invite without --attest.";
    AttestationNotSetUp = 3013, exit 78, "the gateway cannot check a TPM's word",
        "Its muster.toml names no certificates of TPM makers, or no registers that are accepted.",
        "On the gateway's machine, set [attestation] roots, secure_boot and images; see docs/spec/attestation.md.";
    EkCertificateMissing = 3014, exit 69, "the TPM has no certificate of its maker",
        "Nothing is kept where the certificate of an endorsement key belongs, or it is of another key.",
        "Use another machine, or an invite without --attest: many virtual TPMs have none.";
    EkUntrusted = 3015, exit 77, "no accepted maker vouches for the TPM",
        "Its certificate does not hold, or is not signed by a CA that the gateway's muster.toml names.",
        "The gateway's log names the issuer. If it is a maker that you trust, add the very CA that signed to [attestation] roots.";
    EkNotInvited = 3016, exit 77, "the invite is for another TPM",
        "It was made with --ek for certain TPMs, and this is none of them.",
        "muster-preboot prints this TPM's id as it joins; an admin makes an invite with it.";
    AttestationKeyUnfit = 3017, exit 76, "the TPM's key cannot attest",
        "The key that was sent is malformed, or could sign what its TPM did not say.",
        "Check that both sides run the same major version of muster. Nothing of ours makes such a key.";
    CredentialRefused = 3018, exit 77, "the TPM does not open the gateway's credential",
        "The certificate that was sent is of another TPM's key, or something between changed the credential.",
        "Find out what stands between this machine and its TPM; a copied certificate does not help anybody.";
    QuoteInvalid = 3019, exit 77, "the TPM's word does not hold",
        "It is malformed, not signed by the key that was sent, or not over the registers that were sent.",
        "Nothing of ours does this. Treat the sender as hostile.";
    QuoteOfAnother = 3020, exit 77, "the TPM's word was given for something else",
        "It was recorded in another session, is for other keys, or comes from a TPM that did not open the credential.",
        "Nothing of ours does this. Treat the sender as hostile.";
    BootNotAccepted = 3021, exit 77, "the machine was started in a way that is not accepted",
        "A register of its TPM holds a value that the gateway's muster.toml does not name.",
        "The gateway's log names register and value. Register 11 is the image, 7 Secure Boot, 12 a foreign command line.";

    TpmAbsent = 4001, exit 69, "no TPM",
        "The TPM device cannot be opened.",
        "Enable the TPM in the firmware, check `[keys] tpm` in the configuration, and that the user may open the device.";
    TpmBusy = 4002, exit 75, "the TPM is busy",
        "Another program holds the TPM, or it is still testing itself.",
        "Use /dev/tpmrm0, not /dev/tpm0; try again.";
    TpmReplaced = 4003, exit 78, "this is another TPM, or it was cleared",
        "The TPM's storage key is not the one that sealed this machine's keys.",
        "If the hardware was changed on purpose: `muster leave`, then join with a new invite.";
    SealedKeyDamaged = 4004, exit 65, "the sealed key is damaged",
        "The file does not open although the TPM is the right one.",
        "Restore the file from a backup of this machine, or join again with a new invite.";
    KeyFileNotAllowed = 4005, exit 78, "keys in a file are not allowed here",
        "The key is stored in a file but the configuration asks for the TPM.",
        "Set `[keys] storage = \"file\"` if that is what you want; it will be shown to all members.";
    FileModeTooOpen = 4006, exit 78, "a secret is readable by others",
        "A file or directory with secrets in it must be open to its user alone.",
        "`chmod go=` it (and chown it), then find out who has read it.";
    WrongPassphrase = 4007, exit 77, "wrong passphrase",
        "The key file does not open with this passphrase.",
        "Try again; MUSTER_PASSPHRASE or --passphrase-file set it without a prompt.";
    KeysMissing = 4008, exit 78, "no keys on this machine",
        "The state directory has no sealed keys.",
        "Join first: `muster join INVITE`.";
    TpmFailure = 4009, exit 69, "the TPM refused",
        "The TPM answered with an error that has no better name here.",
        "The log has the TPM's own words; power-cycle the machine if it is in failure mode.";
    KeyFileMalformed = 4010, exit 65, "the key file is not readable",
        "The file is not a muster key file, or it is damaged.",
        "Use the backup of the key file or the printed recovery sheet.";
    RotationUnderWay = 4011, exit 75, "a rotation of this machine's keys is not finished",
        "The last rotation still waits for the disk, a member or a gateway, or its old keys were kept.",
        "Look with `muster key show`. It goes on by itself; `muster key retire` ends keys that were kept.";
    FirmwareChanged = 4012, exit 78, "the firmware is not set as it was when the keys were sealed",
        "PCR 7 differs: Secure Boot was switched, its keys were changed, or another of them let this system start.",
        "Set the firmware as it was, or look at `muster tpm status` for what differs. If the change is to stay: `muster key recover`.";
    ImageNotApproved = 4013, exit 77, "what was booted does not open these keys",
        "PCR 11 is not what the org's image key approved for them: the image was changed, another system runs, or the part of the boot that they open in is over.",
        "Boot an image that `muster image preboot` made with the org's keys. `muster tpm status` shows what differs.";
    AddedToImage = 4014, exit 77, "something was added to the booted image",
        "PCR 12 is not zero: a command line, or files beside the image, were given to it and measured.",
        "Boot the image as it is: take options out of the firmware's or boot loader's entry, and *.cred files away from beside the image.";
    OtherImageKey = 4015, exit 77, "the booted image is not approved by the key that these keys were sealed for",
        "The image was made with other org keys, or its approvals are missing or damaged.",
        "Boot an image made with the org key file that the machine joined with; `muster tpm plan --uki FILE` tells whether one will do.";
    KeysInOrder = 4016, exit 2, "these keys need no recovery",
        "Nothing on this machine keeps its keys closed.",
        "For new keys: `muster key rotate`. To give the place in the org up: `muster leave`.";
    TpmLocked = 4017, exit 69, "the TPM is locked by wrong guesses",
        "Some program guessed a password of its own in this TPM too often. Keys of muster have no password and open even so.",
        "Nothing for muster. The TPM takes guesses again after a while; `tpm2_dictionarylockout --clear-lockout` is sooner.";

    NameNotResolved = 5001, exit 69, "the gateway's name does not resolve",
        "No address is known for the host name.",
        "Check the name in the invite and this machine's DNS.";
    GatewayRefused = 5002, exit 69, "nobody listens at the gateway's address",
        "The connection was refused.",
        "Check that muster-gateway runs there and that the port is right.";
    GatewayUnreachable = 5003, exit 75, "the gateway cannot be reached",
        "No answer within the deadline.",
        "Check routes and firewalls between this machine and the gateway.";
    NotTls = 5004, exit 76, "the gateway does not speak TLS 1.3",
        "Something else answered, or only older versions are offered.",
        "Check the port; a proxy in between must pass TLS through.";
    ChainUnknown = 5005, exit 77, "the gateway's certificate is not from the org's CA",
        "The chain does not end in an anchor of this org. Public CAs do not count.",
        "`muster debug connection` names the link that is missing. If the org changed its CA, get a fresh invite or image.";
    CertificateName = 5006, exit 77, "the gateway's certificate is for another name",
        "The name that was dialled does not stand in the certificate.",
        "Use the name from the invite, or renew the certificate with this name in it.";
    CertificateExpired = 5007, exit 77, "the gateway's certificate has expired",
        "Its last day has passed by this machine's clock.",
        "Check the clock first; then renew the certificate on the gateway.";
    CertificateNotYetValid = 5008, exit 77, "the gateway's certificate is not valid yet",
        "Its first day lies ahead by this machine's clock.",
        "Set this machine's clock.";
    BundleInvalid = 5009, exit 65, "the trust bundle is not usable",
        "A leaf, a private key, nothing at all, or too much stands where CA certificates should.",
        "Give the CA certificate(s) of the org in PEM or DER and nothing else.";
    GatewayNotNamed = 5010, exit 77, "the server is not a gateway of this org",
        "Its certificate is in order but the org's settings do not name its key.",
        "Its TLS key may be stolen. Tell the admin.";
    ChartersInvalid = 5011, exit 65, "the org's settings from the gateway do not hold",
        "The gateway sent settings that are not signed as the org's own rules ask.",
        "Do not go on. Tell the admin.";
    TlsFailed = 5012, exit 76, "TLS failed",
        "The TLS handshake failed for a reason that has no better name here.",
        "The log of both sides has the reason.";
    GatewayBehind = 5013, exit 75, "the gateway holds older org settings than this machine",
        "Settings that this machine has seen are missing there: the gateway is out of date, or set back.",
        "Let the gateway catch up with the other members, or use another gateway.";
    GatewayUnavailable = 5014, exit 75, "the gateway cannot answer at the moment",
        "Its front runs, but the musterd behind it does not.",
        "Try again; on the gateway, `systemctl status musterd` says more.";

    DaemonNotRunning = 6001, exit 69, "musterd is not running",
        "Nobody answers on the control socket.",
        "Start it: `systemctl start musterd`.";
    StoreDamaged = 6002, exit 65, "the member list on disk is damaged",
        "The file does not open; nothing was changed.",
        "Move it away and restart musterd: it fetches the list from the other members and checks it.";
    DiskRefused = 6003, exit 75, "the disk refused a write",
        "The disk is full or failing. What was not written was not acknowledged.",
        "Free space or replace the disk. Revocations hold meanwhile; new members do not count yet.";
    StoreInUse = 6004, exit 75, "another musterd uses this state directory",
        "The lock is held.",
        "Stop the other process.";
    NotPermitted = 6005, exit 77, "not permitted",
        "This user may not ask musterd to do that.",
        "Run as root or as a member of the group muster.";
    TunUnavailable = 6006, exit 69, "no network interface for the overlay",
        "The TUN device cannot be made.",
        "Run musterd as root or with CAP_NET_ADMIN, and load the module tun.";
    PortInUse = 6007, exit 69, "a port is taken",
        "Another program listens on the address musterd wants.",
        "Change `[network] port`, or stop the other program.";
    NotEnrolled = 6008, exit 78, "this machine has not joined",
        "There is no org in the state directory.",
        "Join first: `muster join INVITE`.";
    PeerUnreachable = 6009, exit 75, "the member does not answer",
        "No tunnel could be made: it is off, out of reach, or has no known endpoint.",
        "`muster member show NODE` prints its endpoints and when it was last heard.";
    HandoverRejected = 6010, exit 65, "what preboot handed over does not hold",
        "The directory from preboot is incomplete or its parts do not belong together.",
        "Boot again; if it repeats, the disk is failing.";
    RequestMalformed = 6011, exit 76, "a local request is malformed",
        "The program and musterd do not speak the same release.",
        "Restart musterd after an upgrade.";
    NoSuchReference = 6012, exit 65, "no such reference",
        "No refusal with this reference is remembered here.",
        "Ask on the machine that refused; references are forgotten after a restart.";
    LeaveUnheard = 6013, exit 75, "no other member has heard that this machine leaves",
        "This machine said that it leaves, and within five seconds no member has shown that it knows. So it has not left.",
        "Bring it in contact with another member (`muster status`) and run `muster leave` again, or ask an admin to revoke it.";
    StoreNewer = 6014, exit 78, "a newer release wrote the member list",
        "This release does not read what that one wrote. Nothing was changed.",
        "Install the newer release again, or `muster restore` what was backed up before the upgrade.";

    ConfigUnknownKey = 7001, exit 78, "an unknown setting",
        "The configuration has a key that this release does not know.",
        "Correct the spelling; the message names the nearest known key.";
    ConfigBadValue = 7002, exit 78, "a setting with a wrong value",
        "The value has the wrong type or is out of range.",
        "The message names the key and what it takes.";
    ConfigUnreadable = 7003, exit 78, "the configuration cannot be read",
        "The file is missing, too large, or not TOML.",
        "Check path and syntax.";
    Usage = 7004, exit 2, "the command is not complete",
        "An argument is missing or contradicts another one.",
        "See `muster help COMMAND`.";
    SeedWirePublic = 7005, exit 78, "the old wire is not allowed on this listener",
        "The seed's handshake can be relayed; it is served on loopback only.",
        "Remove the setting, or listen on 127.0.0.1.";
    FileProblem = 7006, exit 74, "a file cannot be read or written",
        "The operating system refused.",
        "The message names the file and the reason.";
    OrgExists = 7007, exit 73, "there is an org here already",
        "The directory holds keys of an org.",
        "Give another directory; keys are never overwritten.";
    NeedsYes = 7008, exit 2, "this wants a clear yes",
        "The command cannot be undone, or locks somebody out, and nobody was there to be asked.",
        "Read what it says, then add --yes.";
    // What `muster debug connection` tells apart.
    ResolverSilent = 7010, exit 75, "no name server answers",
        "The name servers of this machine did not answer, so that nothing is known about the gateway's name.",
        "Look at /etc/resolv.conf and at the network; `resolvectl status` names the servers.";
    NoRoute = 7011, exit 69, "no route to the gateway",
        "This machine's network has no way to the address.",
        "Check the interface and its routes: `ip route get ADDRESS`.";
    TlsPlainHttp = 7012, exit 76, "plain HTTP is spoken there",
        "The port answers in HTTP without TLS: it is the wrong port, or the wrong program listens on it.",
        "Use the port of muster-gateway; it is 443 unless its configuration says otherwise.";
    TlsVersionOld = 7013, exit 76, "the server speaks no TLS newer than 1.2",
        "An older TLS answers there: an old web server, or a proxy that ends TLS.",
        "Let the proxy pass TLS through unopened to muster-gateway.";
    ChainMissingIntermediate = 7020, exit 77, "a link of the certificate chain is missing",
        "The server sent its certificate without the one that signed it, and that one is no anchor here either.",
        "Append the certificate of that issuer to the gateway's certificate file and reload it. If the issuer is another CA than the org's, it is the wrong server or the wrong bundle.";
    ChainOtherRoot = 7021, exit 77, "the certificate chain ends in another CA",
        "Every link is there, but the last one is not of this org: another org's gateway, a new CA, or somebody in between.",
        "Compare the two keys with `muster org show`. After a change of the CA get a fresh invite or image.";
    ChainSelfSigned = 7022, exit 77, "the server's certificate is signed by itself",
        "No CA stands behind it: a placeholder of some web server, or a certificate made by hand.",
        "Have the gateway's certificate signed by the org's CA. A leaf cannot be an anchor.";
    ChainWorldCa = 7023, exit 77, "the certificate is from a public CA",
        "It bears the marks of a CA that browsers trust. Only the org's own CAs count, and the system's store is never asked.",
        "An edge or web server answers in place of the gateway: let it pass TLS through, or correct the address.";
    IntermediateExpired = 7024, exit 77, "an intermediate certificate has expired",
        "The gateway's own certificate is in its time, one that it stands on is not.",
        "Renew the intermediate and put the new one into the gateway's certificate file.";
    AnchorRetired = 7025, exit 77, "the chain comes from a CA that the org has retired",
        "The gateway still shows a certificate of the old CA, its own or one that it sends beside its own.",
        "Give the gateway a certificate of the CA in force, which `muster org show` lists, and take the old CA out of its certificate file.";
    AnchorExpired = 7026, exit 77, "a CA of the bundle is past its last day",
        "TLS does not look at the dates of anchors, so it goes on working; other programs may refuse it.",
        "Plan a change of the CA.";
    BundleEmpty = 7030, exit 65, "no CA certificate in the bundle",
        "The file is empty or holds comments only.",
        "Give the CA certificate(s) of the org in PEM or DER.";
    BundleNotCa = 7031, exit 65, "a certificate in the bundle is not a CA's",
        "A server's own certificate, or one that may not sign others, stands where CA certificates should. As an anchor it could not be replaced without touching every machine.",
        "Take it out, and put in the certificate of the CA that signed it.";
    BundlePrivateKey = 7032, exit 65, "a private key is in the bundle",
        "The bundle goes to every machine, and the key would go with it.",
        "Take it out. If the file has left this machine, the key is no secret any more: replace it.";
    BundleTooMany = 7033, exit 65, "too many certificates in the bundle",
        "More than 16 stand there: probably the system's store was given.",
        "Give the CA certificate(s) of the org and nothing else.";
    BundleTooLarge = 7034, exit 65, "the bundle is too large",
        "More than 64 KiB were given.",
        "Give the CA certificate(s) of the org and nothing else.";
    BundleJunk = 7035, exit 65, "something in the bundle is no certificate",
        "Lines or bytes stand before, between or behind the certificates.",
        "Take them out; lines that begin with # are comments and may stay.";
    BundleDuplicate = 7036, exit 65, "a certificate stands twice in the bundle",
        "Probably two files were put together that share one.",
        "Take one out.";
    EdgeTerminatesTls = 7040, exit 77, "TLS ends before the gateway",
        "The gateway proved its key for another TLS connection than this one: an edge, a proxy or somebody hostile opens TLS in between.",
        "Let what stands in between pass TLS through unopened (in nginx: `stream` with `proxy_pass`, not `http`). If nobody of yours put it there, tell the admin.";
    WebSocketStatus = 7041, exit 76, "the server does not open the WebSocket",
        "It answered the upgrade with an ordinary HTTP status: it is no gateway, or a proxy took the upgrade away.",
        "Check the address; a proxy must pass `Upgrade` and `Connection` on, or better TLS as a whole.";
    WebSocketBadAccept = 7042, exit 76, "the WebSocket was accepted for another request",
        "The answer to the upgrade does not fit what was asked: a cache or a proxy gave an old or invented one.",
        "Take caches out of the way; pass TLS through to the gateway.";
    CertificateRefused = 7043, exit 77, "the other side refused this gateway's certificate",
        "Its trust bundle, its clock or the name that it dialled does not fit the certificate shown here.",
        "There `muster debug connection` says which; it prints the reference of this line.";
    EdgeRefused = 7044, exit 76, "the edge does not let TLS to the gateway through its WebSocket",
        "It opened TLS and answered the upgrade at /v1/tls with something else: that path does not lead to a gateway there, or the upgrade was taken away.",
        "At the edge, pass /v1/tls with `Upgrade` and `Connection` on to the gateway's TLS port (in nginx: `proxy_pass https://`); if it passes TLS through unopened, leave `wss://` out of the address.";
    DiagnosisUnsaid = 7045, exit 75, "the member did not say what it sees",
        "It let this machine ask, and what came is no finding: another look may be under way there, and it makes one at a time.",
        "Try again. On that machine: `journalctl -u 'muster-diagnose@*'`, and bring both to one release.";
    GatewayNotKnown = 7046, exit 77, "that machine knows no such gateway",
        "For another member a machine looks at the gateways of the org that it knows, and at nothing else.",
        "Leave the address out, or give one as it stands in that machine's settings: `muster debug connection` there names them.";
    NoTunnel = 7050, exit 75, "no tunnel to another member is up",
        "This machine knows other members, and has heard none of them by way of WireGuard.",
        "Check that UDP passes between the machines; `muster ping NODE` measures each step.";
    ClockImplausible = 7060, exit 75, "this machine's clock cannot be right",
        "It stands before the first day of every CA of the org.",
        "Set the clock. Membership does not depend on it, certificates do.";
    ReleasesDiffer = 7070, exit 75, "muster and musterd are of different releases",
        "The command was updated and the daemon runs on as it was started, or they come from different places.",
        "Restart the daemon: `systemctl restart musterd`. If that does not help, install both from one package.";
    DiskAlmostFull = 7071, exit 75, "there is little room left for the state directory",
        "When the disk is full, changes of the member list cannot be kept, and this machine acknowledges none.",
        "Make room on the file system that is named.";
    NeighboursSilent = 7072, exit 75, "members that this machine keeps in step with do not answer",
        "They are off, or the network between does not carry UDP on the tunnels' port.",
        "`muster ping NODE` to one of them; on the way, let UDP on `[network] port` through.";
    NamesNotAnswered = 7073, exit 75, "names are not answered",
        "`[names] listen` is set, and what answers there does not answer with this machine's address.",
        "Restart musterd, and see with `ss -lnup` whether another program has the port.";
    PortNotHeld = 7074, exit 75, "nothing takes the tunnels' packets",
        "musterd is to receive UDP on `[network] port`, and this machine has no socket there.",
        "Restart musterd: it says at its start why it does not get the port.";
    ListUncompared = 7075, exit 75, "the member list was not compared with another member's lately",
        "No other member is in contact at the moment, so that a revocation elsewhere would not be known here.",
        "`muster ping NODE` to a member that runs; see whether the network carries UDP between the two.";
    FileExists = 7080, exit 73, "the file exists already",
        "Nothing is overwritten.",
        "Name another file, or move that one away.";
    ArchiveUnreadable = 7081, exit 65, "the file cannot be opened or unpacked",
        "It is not one that muster wrote, it is damaged, or it is encrypted to another key.",
        "Check that it is the right file, and that --identity names the key that it was encrypted to.";

    LabNotUp = 7100, exit 69, "no lab is up",
        "`muster lab` finds no lab in that directory, or one that ended without being taken down.",
        "`muster lab up` begins one; `--dir` says where it lies.";
    LabIsUp = 7101, exit 73, "a lab is up there already",
        "One directory has one lab.",
        "`muster lab status` shows it, `muster lab down` ends it; `--dir` begins another one.";
    LabLacks = 7102, exit 69, "this machine lacks what a lab needs",
        "A lab is made of network namespaces, nftables and TUN devices, with --swtpm also of emulated TPMs.",
        "Install what is named.";
    LabRefused = 7103, exit 77, "no namespaces for this user",
        "The kernel, or the container around this program, does not let it make namespaces.",
        "Run it as root, or allow user namespaces; the message names the settings that forbid them.";
    LabFailed = 7104, exit 75, "the lab does not work",
        "A program in it failed, or did not do in time what it should.",
        "Read lab.log in its directory and musterd.log below it; `muster lab down` removes what is left.";
    LabNoMachine = 7105, exit 65, "no such machine in the lab",
        "Machines of a lab are called n1, n2 and so on.",
        "`muster lab status` lists them.";
    LabPlace = 7106, exit 73, "a lab cannot lie there",
        "It wants a directory of its own outside /run, with a name short enough for sockets in it.",
        "Give another one with `--dir`.";

    // Images and booting.
    ImageIncomplete = 8001, exit 65, "the image lacks something of its org",
        "A file that every image carries is missing or malformed: the image was not made by `muster image preboot`.",
        "Make the image anew, and look at it with `muster image verify FILE`.";
    ImageOtherOrg = 8002, exit 65, "the image belongs to another org",
        "The disk holds the state of a machine of one org and was started by the image of another.",
        "Start the image of the disk's org, or give this image an empty disk.";
    NoStateDisk = 8003, exit 69, "no disk for this machine's state",
        "No disk, or more than one, carries an ext4 file system with the label muster-state.",
        "Make one: `mkfs.ext4 -L muster-state DEVICE`. A disk of another kind may need a driver that the image lacks.";
    NoNetwork = 8004, exit 75, "no network",
        "No Ethernet interface got an address, by DHCP or by router advertisement.",
        "Check cable and DHCP server; an interface of another kind may need a driver that the image lacks.";
    NodeImageMissing = 8005, exit 69, "no node image",
        "No FAT file system holds muster/node.release and muster/node.squashfs.",
        "Put both beside the image that boots: `muster image node` makes them.";
    NodeImageInvalid = 8006, exit 65, "the node image is not one that the org released",
        "The signature of the org's release key does not hold, or the image is not the one that it signed.",
        "Copy both files again from where they were made. If they are right there, somebody changed the disk.";
    GenerationTooOld = 8007, exit 77, "the node image is older than this machine allows",
        "This machine has run a newer release, and starts none before it.",
        "Put the newest node image on the disk.";
    KernelRefused = 8008, exit 71, "the kernel refused",
        "A mount, a module or another request to the kernel failed while booting.",
        "Check that kernel and modules of the image belong together: make the image anew.";
    ImageInputs = 8009, exit 65, "an image cannot be made of this",
        "A kernel, stub, module, program or library is missing, or is not what it should be.",
        "Install what is named, or name it by its option; see images/README.md.";
    InviteTooOpen = 8010, exit 77, "the invite would let in whoever has the image",
        "An image is copied, and the invite in it with it; this one lets several machines join without approval.",
        "Make one with `muster invite create --approval`, for one machine or for certain TPMs (--ek), or accept it with --bearer.";
    NodeImageTooLarge = 8020, exit 65, "the node image is larger than any machine takes",
        "A machine copies the image into its memory before it starts it, and takes 1 GiB at most.",
        "Make it smaller: `muster image node` puts in what musterd needs and nothing else.";
    NodeImageDamaged = 8021, exit 76, "a part of a file is not what its hash says",
        "What was sent is not a part of the image or file with this hash. Nothing of it is kept.",
        "Try again; if it is always the same gateway, publish the image there anew with `muster image publish`.";
    NodeImageNotHeld = 8022, exit 69, "that image is not held here",
        "None was published on this machine, or it has made room for newer ones since.",
        "Publish it on a gateway: `muster image publish DIR`.";
    NodeImageGivenUp = 8023, exit 75, "a release was given up, an earlier one runs",
        "It was started as often as a release may be without becoming ready, and the last one that did was started instead.",
        "Look at that release's log or console, and publish a new one under a higher number.";
    NodeImageNotKept = 8024, exit 74, "a node image could not be kept",
        "The disk with this machine's state has no room for it or refuses writes; the machine starts what it has.",
        "Make the file system labelled muster-state larger, or replace the disk.";
    NodeImageOutOfOrder = 8025, exit 65, "a part of an image came out of its order",
        "The image is being published by somebody else at the same time, or a part was lost on the way.",
        "Publish it again: it goes on where it stopped.";
    TransferSilent = 8026, exit 75, "nothing more came of a transfer in time",
        "A machine that fetches or puts a file took half a minute and more for one step, or stopped.",
        "Look at the network between the two. A transfer goes on where it stopped.";
    PersistDisk = 8030, exit 74, "the encrypted disk cannot be used",
        "Several disks carry the label muster-persist, or cryptsetup or mke2fs failed on it, as it says.",
        "Mark one disk only: `mkfs.ext4 -L muster-persist DEVICE`. The image needs `muster image preboot --persist`.";
    PersistLocked = 8031, exit 77, "the encrypted disk does not open with this machine's key",
        "The machine has other keys than when the disk was made, or the disk comes from another machine.",
        "Get its recovery passphrase with `muster image recovery DISK` and the org keys, and type it at the console.";
    ShareNotHeld = 8032, exit 69, "no gateway has a share of the disk's key to give",
        "The gateways that answered do not keep a share key of the epoch that the disk or its image names.",
        "On a gateway, with the org keys: `muster gateway share --epoch N`. The recovery passphrase opens the disk without.";
    ShareWithheld = 8033, exit 77, "a gateway withholds the share of the disk's key",
        "This machine's keys are not bound to what it booted, so that a share would open the disk for whatever runs there.",
        "Have it join anew under Secure Boot with a TPM (`muster invite create --attest`), or give it an image without a share.";
    ShareOutOfReach = 8034, exit 75, "the disk stays shut without a gateway",
        "It opens with a share that gateways give at each start, and none was reached.",
        "Bring a gateway into reach. The recovery passphrase opens the disk without: `muster image recovery DISK`.";

    NoPolicy = 9001, exit 77, "no policy allows this",
        "The machine is a member, and the org's policy does not let it use this service of that machine.",
        "An admin allows it: `muster policy apply FILE`. `muster trace FROM TO ACTION` shows which rules come nearest.";
    ServiceDown = 9002, exit 75, "the program behind the service does not answer",
        "The member may use the service, and the program that it stands for refused the connection or broke it.",
        "On the machine that offers it, see that the program runs where `muster expose list` says.";
    ServiceDeclared = 9003, exit 78, "the service stands in the settings",
        "A service of that name is declared in muster.toml of this machine, and commands do not change that.",
        "Change it there; musterd reads it again on SIGHUP.";
    NoSuchService = 9004, exit 1, "no such service here",
        "This machine offers no service of that name.",
        "`muster expose list` shows those it offers.";
    ServiceName = 9005, exit 2, "not a name for a service",
        "The name is one of muster's own actions, or is not made of a-z, 0-9 and hyphens.",
        "Choose another, such as `ssh` or `postgres`.";
    NobodyThere = 9006, exit 1, "nobody is known there",
        "No member has that overlay address, and no session of a service comes from that port.",
        "`muster member list` shows the members' addresses; a port is known as long as its connection lives.";
    PolicyUnreadable = 9020, exit 65, "the policy file cannot be read",
        "There is no such file, or it is not TOML.",
        "Correct the line that is named; docs/policy.md has an example.";
    PolicyUnknownKey = 9021, exit 65, "an unknown setting in the policy file",
        "A policy has [[rule]] with from, to and action, and [[test]] with from, to, action and expect.",
        "Use the setting that is named as the nearest, or take the line out.";
    PolicyBadValue = 9022, exit 65, "a value in the policy file is not usable",
        "A setting is missing, stands twice, or has a value of another kind than it takes.",
        "Write what the message says the setting takes.";
    PolicyBadSelector = 9023, exit 65, "a word in the policy file names nobody",
        "Members are named by role:NAME, label:NAME or member:NAME, everybody by any; names have a-z, 0-9 and inner hyphens.",
        "Correct the word; `muster member list` shows roles, labels and names.";
    PolicyBuiltIn = 9024, exit 65, "an action that no policy decides",
        "Actions such as link, ping and sync are muster's own: every member does them, and nobody else.",
        "Take it out of the policy; a policy is about what `muster expose` serves, and about blob-put and blob-get.";
    PolicyTooLarge = 9025, exit 65, "the policy is too large",
        "A policy has at most 128 rules, 16 words in a list and 8,016 bytes as it is signed, its file 1,024 tests.",
        "Give members that are treated alike a role or a label, and name that.";
    PolicyTestFailed = 9026, exit 65, "a test in the policy file fails",
        "The rules allow what a test expects to be denied, or the reverse.",
        "Correct the rules or the test. A policy whose tests fail is not applied.";
    PolicyAbsent = 9027, exit 77, "the org has no policy",
        "Without a policy no member may do anything to another but what muster itself does.",
        "An admin writes one and runs `muster policy apply FILE`; docs/policy.md has an example.";
    PolicyDenies = 9028, exit 77, "the policy does not allow this",
        "No rule of the org's policy lets this member do this action to that one.",
        "`muster trace FROM TO ACTION` shows which rules come nearest; an admin changes the policy.";
    BlobsOff = 9040, exit 69, "that member keeps no files for others",
        "Its musterd has no `[blobs] max`, or the settings were changed without a restart.",
        "Set `[blobs] max`, such as \"10 GiB\", on the machine that is to keep them, and restart its musterd.";
    BlobsFull = 9041, exit 75, "no room for that file there",
        "It would be more than `[blobs] max` or `[blobs] member` on that machine allow, or too many files.",
        "Remove files with `muster blob remove`, or raise the limits on that machine.";
    BlobTooLarge = 9042, exit 65, "the file is too long or empty",
        "A file that a member keeps has at least one byte, and at most 1 GiB.",
        "Put it in parts: `split -b 1G FILE`.";
    BlobNotHeld = 9043, exit 69, "no such file is kept there for this machine",
        "Nobody has put a file with this hash there, it was removed, or this machine neither put it nor may get it by the policy.",
        "`muster blob list` on that machine shows what it keeps; `muster trace FROM TO blob-get` what the policy says.";
    BlobNotKept = 9044, exit 74, "a file could not be kept",
        "The disk with that machine's state has no room for it or refuses writes.",
        "Look at that machine's log and disk, and put the file again: it goes on where it stopped.";
}

impl Code {
    /// The code with this number.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.number() == number)
    }

    /// Reads `MU-nnnn`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("MU-").filter(|d| d.len() == 4)?;
        if digits.bytes().all(|c| c.is_ascii_digit()) {
            Self::from_number(digits.parse().ok()?)
        } else {
            None
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MU-{:04}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_read_back() {
        assert!(Code::ALL.is_sorted_by(|a, b| a.number() < b.number()));
        for &code in Code::ALL {
            assert_eq!(Code::parse(&code.to_string()), Some(code));
        }
        assert_eq!(Code::parse("MU-9999"), None);
        assert_eq!(Code::parse("MU-+403"), None);
    }

    #[test]
    fn every_text_speaks_to_an_operator() {
        const INNER: [&str; 7] =
            ["charter", "statement", "cosign", " cut ", "roster", "standing", "generation"];
        for &code in Code::ALL {
            for text in [code.title(), code.cause(), code.remedy()] {
                assert!(INNER.iter().all(|word| !text.to_lowercase().contains(word)), "{code}: {text}");
            }
            assert!(code.cause().ends_with('.') && code.remedy().ends_with('.'), "{code}");
        }
    }
}
