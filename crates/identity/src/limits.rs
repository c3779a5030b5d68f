//! Every bound on a quantity that a peer, a file or a stranger controls, with its reason.
//!
//! Sizes are in bytes and times in milliseconds unless the name says otherwise.

// conn_auth, before anybody is proved (docs/spec/conn-auth.md)

/// A HELLO line. Room for the fixed fields (at most 273) and sixteen short parameters.
pub const HELLO_BYTES_MAX: usize = 1024;
/// A CHALLENGE line: its fields have one length each.
pub const CHALLENGE_BYTES_MAX: usize = 293;
/// A PROOF line at the largest count.
pub const PROOF_BYTES_MAX: usize = 230;
/// A VERDICT line at the largest count.
pub const VERDICT_BYTES_MAX: usize = 121;
/// The name of an action.
pub const ACTION_BYTES_MAX: usize = 32;
/// The key of a parameter.
pub const PARAMETER_KEY_BYTES_MAX: usize = 32;
/// The value of a parameter: a hash or a signature in hexadecimal, an address, a name.
pub const PARAMETER_VALUE_BYTES_MAX: usize = 256;
/// Parameters of an action.
pub const PARAMETERS_MAX: usize = 16;
/// The head of a WebSocket upgrade, request or response: HELLO and the headers libraries and proxies
/// add, with room left in `UNPROVEN_STATE_BYTES_MAX` for what is taken out of it.
pub const HTTP_HEAD_BYTES_MAX: usize = 5 * 1024;
/// Path and query of a request; the longest of ours takes 83.
pub const HTTP_TARGET_BYTES_MAX: usize = 256;
/// Headers in such a head; more than any client of ours sends, few enough to parse on the stack.
pub const HTTP_HEADERS_MAX: usize = 32;
/// One frame of the WebSocket in which TLS to a gateway runs through an edge. Read piece by piece and never
/// kept, so no bound on memory: what a length of two bytes says, and no edge makes longer ones of ours.
pub const EDGE_FRAME_BYTES_MAX: usize = 65_535;
/// What is put into one frame of ours. Kept until it has left, beside a head that waits to be read: both
/// together stay below `UNPROVEN_STATE_BYTES_MAX`.
pub const EDGE_PIECE_BYTES_MAX: usize = 2 * 1024;
/// From TCP accept until HELLO is complete, TLS included.
pub const HELLO_DEADLINE_MS: u64 = 3_000;
/// From TCP accept until VERDICT, TLS included. A slow peer holds one of the slots below this long.
pub const HANDSHAKE_DEADLINE_MS: u64 = 5_000;
/// Connections of unproven peers held at once; 512 handshakes are under 70 ms of one core.
pub const UNPROVEN_MAX: usize = 512;
/// Connections that the kernel keeps ready until they are accepted. With 128, the usual number, a crowd of
/// `UNPROVEN_MAX` that dials at once fills it, and whoever comes meanwhile waits for a SYN's second and third
/// copy, 1 s and 3 s later.
pub const LISTEN_BACKLOG: u32 = 4096;
/// Unread and unwritten bytes we keep for an unproven peer beside what the TLS library keeps.
pub const UNPROVEN_STATE_BYTES_MAX: usize = 8 * 1024;
/// Networks remembered because a peer in them proved its key: half of the places above are theirs.
pub const NETWORKS_PROVEN_MAX: usize = 4096;
/// How long one frame of a session may wait for a peer that does not read.
pub const FRAME_WRITE_DEADLINE_MS: u64 = 10_000;
/// How long a cut session's close frame may take to leave before the socket is dropped.
pub const CLOSE_FLUSH_MS: u64 = 500;
/// How long a machine that is out of the org, or leaves, waits for its neighbours to show that they have
/// the change that says so. They answer within a round trip; one that is gone is noticed in this time.
pub const PARTING_MS: u64 = 5_000;
/// A dialler's patience for TCP, TLS and the four messages together.
pub const DIAL_DEADLINE_MS: u64 = 10_000;

// Frames after VERDICT, by action

/// `enrol`: one request (four keys, four signatures, a name) of at most 514 bytes, and with attestation a
/// certificate and a key of the TPM.
pub const ENROL_FRAME_BYTES_MAX: usize = 4 * 1024;
/// The certificate of a TPM's endorsement key: what one place of its memory holds at most.
pub const EK_CERTIFICATE_BYTES_MAX: usize = 2048;
/// A key, a credential or a quote in the TPM's encoding. An RSA-2048 key or ciphertext, the largest, takes
/// under 320.
pub const TPM_STRUCTURE_BYTES_MAX: usize = 512;
/// Machines that have been asked to open a credential and have not answered.
pub const ATTESTATIONS_PENDING_MAX: usize = 64;
/// How long that answer may take: an old TPM makes its keys anew for it, some seconds each.
pub const ATTESTATION_ANSWER_MS: u64 = 30_000;
/// `boot`, `fetch` and `submit` requests: a submit carries a charter of the largest size, or some
/// thirty other changes.
pub const REQUEST_FRAME_BYTES_MAX: usize = 32 * 1024;
/// A frame of records or ids on `sync`, `fetch` and `boot`: a batch is cut before it passes this.
pub const SYNC_FRAME_BYTES_MAX: usize = 64 * 1024;
/// `link` and `ping` carry an echo and nothing else.
pub const PING_FRAME_BYTES_MAX: usize = 256;

/// A program's service: as much of its stream as one read gives. Larger frames were not faster, and each side
/// keeps two.
pub const SERVICE_FRAME_BYTES_MAX: usize = 64 * 1024;
/// What a member asks of another one's diagnosis: an address, of which a name has 253 bytes.
pub const DIAGNOSE_QUESTION_BYTES_MAX: usize = 1024;
/// Until the question is there, which is sent with the connection: the patience of a handshake. One look is made
/// at a time, and who says nothing keeps the others waiting.
pub const DIAGNOSE_QUESTION_MS: u64 = 5_000;
/// The finding: 16 lines, and of 17 certificates sent and 16 trusted names and dates, each bounded by the TLS
/// handshake that carried them.
pub const DIAGNOSE_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Until the finding is there: the 60 s that systemd leaves the walk, and the way there and back. A service's
/// session has no bound of its own, and a member may say nothing for ever.
pub const DIAGNOSE_ANSWER_MS: u64 = 75_000;

// What the org signs

/// One statement; an Assign with everything in it takes 927.
pub const STATEMENT_BYTES_MAX: usize = 1024;
/// A statement that carries a policy, which is about the whole org and not about one member.
pub const POLICY_STATEMENT_BYTES_MAX: usize = 8 * 1024;
/// One report.
pub const REPORT_BYTES_MAX: usize = 1024;
/// One charter with its signatures.
pub const CHARTER_BYTES_MAX: usize = 16 * 1024;
/// Charters of one org, oldest first: governance changes are rare, and a walk of 4,096 is 64 MiB at most.
pub const CHARTERS_MAX: usize = 4096;
/// Root keys in a charter.
pub const ROOT_KEYS_MAX: usize = 16;
/// Admin keys in a charter: one for each device of an administrator.
pub const ADMIN_KEYS_MAX: usize = 64;
/// Gateways in a charter.
pub const GATEWAYS_MAX: usize = 16;
/// TLS CAs in a charter, all states together.
pub const TLS_CAS_MAX: usize = 8;
/// Lanes of removed role keys whose last counting change one charter names: a removal of half the
/// admins at once, two lanes each.
pub const CUTS_MAX: usize = 64;
/// One CA certificate (DER). An Ed25519 CA takes about 350.
pub const CA_CERTIFICATE_BYTES_MAX: usize = 2048;
/// Labels that an invite gives to the machines that use it.
pub const LABELS_MAX: usize = 8;
/// Roles that an Assign gives to a member.
pub const ROLES_MAX: usize = 8;
/// Assigns that one Assign ends. Several at once come from admins who did not know of each other; who
/// meets more of them ends them in steps.
pub const ASSIGNS_REPLACED_MAX: usize = 4;
/// Suspensions that one Resume ends: one for each of some admins who suspended at once.
pub const SUSPENDS_RESUMED_MAX: usize = 16;
/// Rotations of one machine: five years of one a month. Then it joins anew.
pub const ROTATIONS_MAX: u32 = 64;
/// Free text of a person on a revocation or invite.
pub const NOTE_BYTES_MAX: usize = 96;
/// TPMs that one invite is limited to. Room in a statement for a note and labels beside them.
pub const INVITE_TPMS_MAX: usize = 8;
/// Registers' values that a gateway accepts, of each kind.
pub const ACCEPTED_REGISTERS_MAX: usize = 64;
/// Rules of a policy, each asked in turn: a decision stays under some microseconds.
pub const POLICY_RULES_MAX: usize = 128;
/// Selectors in one list of a rule; a role or label stands for more members than that.
pub const POLICY_SELECTORS_MAX: usize = 16;
/// A policy in its statement: header, number and signature take 176 bytes.
pub const POLICY_BYTES_MAX: usize = POLICY_STATEMENT_BYTES_MAX - 176;
/// Uses of one invite.
pub const INVITE_USES_MAX: u32 = 100_000;
/// Endpoints a node lists in its report: several interfaces, two families.
pub const ENDPOINTS_MAX: usize = 8;
/// Lanes a node lists in its report; admins and gateways of a large org fit.
pub const REPORT_TIPS_MAX: usize = 24;
/// Statements at one place of one author's lane that are kept as proof of a fork.
pub const FORK_BRANCHES_MAX: usize = 8;
/// Revocations kept for keys that nobody has admitted yet, by author: a late Admit must meet them,
/// and an admin cannot fill the disk with invented keys.
pub const EARLY_REVOKES_MAX: usize = 10_000;

// The invite manifest and the trust bundle

/// An invite manifest, decoded: one charter of the largest size, a bundle and addresses.
pub const MANIFEST_BYTES_MAX: usize = 96 * 1024;
/// Gateway addresses in a manifest.
pub const MANIFEST_GATEWAYS_MAX: usize = 16;
/// One `HOST:PORT`.
pub const ADDRESS_BYTES_MAX: usize = 262;
/// A member's request to be a gateway: three keys, two signatures, the longest address.
pub const GATEWAY_REQUEST_BYTES_MAX: usize = 512;
/// Certificates in a trust bundle.
pub const BUNDLE_CERTIFICATES_MAX: usize = 16;
/// A trust bundle as a file.
pub const BUNDLE_BYTES_MAX: usize = 64 * 1024;

/// Everything a gateway hands to a machine that boots: 100,000 members with their reports and changes.
pub const BOOT_RECORDS_BYTES_MAX: usize = 256 * 1024 * 1024;

// Keeping in step

/// Sessions of `action=sync` a node dials: to the next member on each of two rings.
pub const SYNC_DIAL_MAX: usize = 2;
/// Sessions of `action=sync` in both directions: a place for the member before it on each ring. A flood
/// crosses 300 such nodes in at most 8 steps and costs each at most four copies.
pub const SYNC_SESSIONS_MAX: usize = 4;
/// From so many members on there is a third ring, whose sessions only flood: with two a flood among
/// 10,000 takes 10 steps, with three 7. Below it two are enough.
pub const FLOOD_RING_FROM: usize = 500;
/// Sessions dialled for that ring; as many have a place.
pub const FLOOD_DIAL_MAX: usize = 1;
/// How long a session of `action=sync` beyond these is kept, so that who has nobody else is brought up
/// to date before it is told to try another.
pub const SYNC_GUEST_MS: u64 = 2_000;
/// Such sessions at once.
pub const SYNC_GUESTS_MAX: usize = 16;
/// How long a machine that was off or cut off hears others before it serves anybody.
pub const HEAL_DEADLINE_MS: u64 = 5_000;
/// Members it dials for that at once, beside those it keeps in step with: the nearest may be down.
pub const HEAL_DIALS_MAX: usize = 4;
/// Lane ends in one tips frame, 73 bytes each: two lanes of every role key a charter may name, with
/// room for forks. Lanes beyond it are found by walking the trie.
pub const SYNC_TIPS_MAX: usize = 512;
/// Records and nodes that one side of a session answers with between two rounds of its own, so at most
/// this every five seconds, whatever the peer says: 25,000 admissions. Whoever lacks more gets the rest
/// in later rounds.
pub const SYNC_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Between two tips exchanges on one session.
pub const TIPS_INTERVAL_MS: u64 = 5_000;
/// Between two probes of SWIM, each to the next of those that this node keeps in step with: every 2 to 3
/// seconds for each of them, whatever the size of the org.
pub const SWIM_PROBE_MS: u64 = 500;
/// How long the answer to a probe may take before others are asked to try; then it has the rest of
/// [`SWIM_PROBE_MS`].
pub const SWIM_ANSWER_MS: u64 = 200;
/// How long a member that did not answer is suspected before it counts as silent.
pub const SWIM_SUSPECT_MS: u64 = 1_500;
/// Others that are asked to try.
pub const SWIM_INDIRECT: usize = 2;
/// Copies sent of one piece of news.
pub const SWIM_COPIES: u8 = 6;
/// Between two datagrams that carry news alone, while there is any.
pub const SWIM_NEWS_MS: u64 = 250;
/// One datagram: a header with three keys and eleven pieces of news.
pub const SWIM_DATAGRAM_BYTES_MAX: usize = 512;
/// Datagrams taken from one member at once.
pub const SWIM_BURST: u32 = 32;
/// Datagrams taken from one member in a second, after those: an honest one sends ten at most.
pub const SWIM_DATAGRAMS_PER_S: u32 = 32;
/// Members probed at once: the sessions of the rings, and as many stand-ins for silent ones.
pub const SWIM_PROBED_MAX: usize = 16;
/// Datagrams on their way to the state; more are dropped.
pub const SWIM_QUEUED_MAX: usize = 64;
/// Records that wait for their predecessor, for each session; dropped with it.
pub const ORPHANS_MAX: usize = 256;
/// The same in bytes.
pub const ORPHAN_BYTES_MAX: usize = 128 * 1024;
/// Frames queued towards one sync peer before it is cut as too slow; anti-entropy repairs.
pub const SYNC_QUEUE_FRAMES_MAX: usize = 1024;
/// A node reports at most this often, and no report of it is taken once they come at twice that
/// rate; newer ones replace older ones anyway.
pub const REPORT_INTERVAL_MS: u64 = 250;

/// Sessions of one member at once, all actions and both directions: a member that measures every ten
/// milliseconds passes after a pause of a second, and a hostile one holds a small part of our memory.
pub const SESSIONS_PER_MEMBER_MAX: usize = 128;

// Programs' services

/// Sessions of one member with programs here at once, both directions, apart from those above: a server with
/// a pool of a hundred connections to a database, and another beside it.
pub const SERVICE_SESSIONS_PER_MEMBER_MAX: usize = 256;
/// Such sessions in all. One holds two descriptors and, while its reader is slow, at most four frames.
pub const SERVICE_SESSIONS_MAX: usize = 1024;
/// Programs that one machine offers.
pub const SERVICES_MAX: usize = 64;
/// How long the program behind an action may take to accept a connection.
pub const SERVICE_CONNECT_MS: u64 = 3_000;
/// The header that tells a program who the peer is: addresses, a name, a key, eight roles and as many labels.
pub const PROXY_HEADER_BYTES_MAX: usize = 1024;

// The tunnel

/// Handshake initiations answered each second before cookies are asked for: about a core's worth
/// is 5,000, and a thousand machines that boot together must not wait.
pub const TUNNEL_HANDSHAKES_PER_S: u64 = 2_000;
/// Packets kept for one member while its tunnel is being made, and as many while it is being linked; the
/// rest is dropped, as IP may.
pub const TUNNEL_QUEUE_PACKETS_MAX: usize = 16;
/// Packets kept for all members together while they are being linked: about 1.5 MiB, since any program on the machine
/// can send to every address there is.
pub const LINK_QUEUE_PACKETS_MAX: usize = 1_024;
/// A link by which nothing has passed for so long is closed: its two ends ask one another all the while whether they are
/// there, and a machine that has spoken with thousands would do little else. The next packet opens it again, in
/// some milliseconds.
pub const LINK_QUIET_MS: u64 = 600_000;
/// Tunnels held at once: a tunnel costs 11 KiB.
pub const TUNNELS_MAX: usize = 4096;
/// Payload of a tunnel packet: 1,500 less 80 for an IPv6 underlay.
pub const TUNNEL_MTU: u16 = 1420;
/// TCP flows of ours towards members' conn_auth ports that may pass before a link is up.
pub const PENDING_FLOWS_MAX: usize = 1024;
/// Flows of ours whose answers may come back once a link is up; about 100 bytes each.
pub const TUNNEL_FLOWS_MAX: usize = 65_536;

// Local sockets and files

/// One message on the control socket, either way: all of 10,000 members take about 8 MiB.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// One message between a gateway and its musterd.
pub const GATEWAY_MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Clients of the control socket at once.
pub const CONTROL_CLIENTS_MAX: usize = 64;
/// How long a local program that asks for names over TCP may be silent.
pub const NAMES_CLIENT_IDLE_MS: u64 = 10_000;
/// Answers that wait for such a program; one question is answered by one.
pub const NAMES_RESPONSES_QUEUED_MAX: usize = 32;
/// Each part of what `muster debug bundle` writes: a journal may be long.
pub const BUNDLE_PART_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A backup, packed and unpacked: the member list of some thousand machines takes some megabytes.
pub const ARCHIVE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// A configuration file.
pub const CONFIG_BYTES_MAX: usize = 256 * 1024;
/// A policy as a person writes it, with its tests and remarks.
pub const POLICY_FILE_BYTES_MAX: usize = 256 * 1024;
/// Tests in such a file.
pub const POLICY_TESTS_MAX: usize = 1024;
/// Events kept for `muster events`, and beside them as many refusals, so that no stranger drives out what
/// happened to members.
pub const EVENTS_KEPT_MAX: usize = 1024;
/// Reasons kept for `muster debug why`; the oldest goes first.
pub const REFUSALS_KEPT_MAX: usize = 4096;
/// scrypt work factor (log2 N) of an operator's key files: about one second on a slow machine.
/// Fixed, because age otherwise measures the build it runs in and refuses what a faster one wrote.
pub const KEY_FILE_WORK_FACTOR: u8 = 17;
/// The largest work factor a key file may ask of us.
pub const KEY_FILE_WORK_FACTOR_MAX: u8 = 20;

// Images

/// An unpacked initramfs: preboot with its libraries and modules is 15 MiB, and builds without stripping
/// some times that.
pub const INITRAMFS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// A node image, copied into memory before it is used.
pub const NODE_IMAGE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// What stands beside a node image and is signed.
pub const GENERATION_BYTES_MAX: usize = 1024;
/// A file that is passed on by its hash: a node image.
pub const BLOB_BYTES_MAX: u64 = NODE_IMAGE_BYTES_MAX;
/// A piece of it, which is checked by itself and fits a frame. The longest file has 32,768, whose nodes
/// take 1 MiB: so much a machine keeps while it fetches, and one piece.
pub const BLOB_PIECE_BYTES: usize = 32 * 1024;
/// Nodes in one frame.
pub const BLOB_NODES_MAX: u32 = 1024;
/// Pieces asked for at once: half a MiB waits for a machine that fetches, and no more.
pub const BLOB_PIECES_MAX: u8 = 16;
/// Sessions of `blob-get` of one machine at once, as which a boot key and a node key count: one fetches, and
/// those that broke off on the way are noticed late.
pub const BLOB_SESSIONS_PER_MEMBER_MAX: usize = 4;
/// Such sessions in all, half a MiB of answer each; who comes beyond that starts what it has.
pub const BLOB_SESSIONS_MAX: usize = 512;
/// From the moment in which an answer has left until the next question: half a MiB at 17 KiB a second, and
/// time to write it down.
pub const BLOB_QUIET_MS: u64 = 30_000;
/// Questions to a machine's images that wait for its disk; who asks beyond that asks again.
pub const BLOB_QUESTIONS_MAX: usize = 256;
/// Questions of `blob-get` that a program hands to its musterd at once: 4 MiB of answers, twice that as
/// hexadecimal digits.
pub const BLOB_ASKED_MAX: usize = 8;
/// Sessions of `blob-put` of one member at once: some files side by side.
pub const BLOB_PUTS_PER_MEMBER_MAX: usize = 4;
/// Such sessions in all. One keeps the nodes of its file, 1 MiB for the longest, and two pieces.
pub const BLOB_PUTS_MAX: usize = 64;
/// Files, whole or in part, that one machine keeps for others: their names are in memory, 200 bytes each.
pub const BLOBS_KEPT_MAX: usize = 16_384;
/// Those of one member.
pub const BLOBS_PER_MEMBER_MAX: usize = 4_096;
/// How long what came of a file waits for the rest.
pub const BLOB_PART_KEPT_MS: u64 = 7 * 24 * 3_600_000;
/// Bytes of an image in one message of the control socket; twice that as hexadecimal digits.
pub const BLOB_UPLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Starts of a node image that has never been ready, before the one before it starts instead.
pub const IMAGE_TRIES_MAX: u8 = 3;
/// The path of a directory in which a node image lies.
pub const SLOT_PATH_BYTES_MAX: usize = 256;
