use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use age::secrecy::ExposeSecret;
use pgwire_stream::{SegmentName, SegmentSize, ServerVersion, SystemId, WalFileName};

use super::*;
use crate::catalog::{Identity, WalIndexRecord, WalIndexWriters};
use crate::daemon::client::{
    BlockingAnswer, BlockingClient, ControlClient, ControlError, WalAnswer, WantedWal,
};
use crate::receiver::Status;
use crate::restore::get_wal::exit_code;
use crate::settings::{ConnInfo, ServerSettings};
use crate::storage::{
    Access, ArchivedWal, ArchivedWriter, Codec, Crc32c, LockKind, Method, Packing, Plain,
    ServerDir, ServerLock,
};

const MIB: usize = 1 << 20;

struct Daemon {
    home: tempfile::TempDir,
    dir: ServerDir,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

fn server_name() -> ServerName {
    "main".parse().unwrap()
}

fn segment(number: u32) -> SegmentName {
    format!("0000000100000000{number:08X}").parse().unwrap()
}

fn control(home: &Home, readers: &[&str]) -> Control {
    let board = Board::default();
    let status = Status::new(server_name(), "walrecv".parse().unwrap());
    board.post(&server_name(), watch::channel(status).1);
    let mut server =
        ServerSettings::new(server_name(), ConnInfo::new("host=x"), "walrecv".parse().unwrap());
    server.encryption_identity = Some(home.path().join("identity"));
    let settings = Settings {
        wal_readers: readers.iter().map(|&reader| reader.to_owned()).collect(),
        servers: vec![server],
        ..Settings::of(home.path())
    };
    let settings = watch::channel(Arc::new(settings)).1;
    Control::new(home.clone(), settings, board).unwrap()
}

async fn daemon() -> Daemon {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path(), Access::Private);
    let dir = home.server(&server_name());
    Identity {
        system_id: SystemId::from_u64(7),
        segment_size: SegmentSize::new(MIB as u64).unwrap(),
        server_version: ServerVersion::from_num(150_020),
        data_checksums: None,
    }
    .establish(&dir)
    .unwrap();
    let (stop, stopped) = watch::channel(false);
    let listener = listen(home.path()).unwrap();
    let task = tokio::spawn(control(&home, &[]).serve(listener, stopped));
    Daemon { home: directory, dir, stop, task }
}

fn wanted(file: WalFileName, partial: bool) -> WantedWal {
    WantedWal { file, partial, lease: None }
}

async fn read(answer: WalAnswer) -> Result<Vec<u8>, ControlError> {
    let WalAnswer::File(mut body) = answer else { panic!("the archive does not end here") };
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(bytes.len() as u64, body.length());
    Ok(bytes)
}

#[tokio::test]
async fn commands_are_answered() {
    let daemon = daemon().await;
    let mut client = ControlClient::connect(daemon.home.path()).await.unwrap();
    client.ping().await.unwrap();
    assert_eq!(client.servers().await.unwrap()[0].server, server_name());
    let main = server_name();
    let root = client.reader(&main, "root").await.unwrap();
    assert_eq!((root.uid, root.served, root.decrypts), (Some(0), true, false));
    let nobody = client.reader(&main, "no such user/../%").await.unwrap();
    assert_eq!((nobody.uid, nobody.served), (None, false));
    let stranger = client.reader(&main, "4242424").await.unwrap();
    assert_eq!((stranger.uid, stranger.served), (Some(4_242_424), false));

    drop(client);
    daemon.stop.send(true).unwrap();
    daemon.task.await.unwrap().unwrap();
    let error = ControlClient::connect(daemon.home.path()).await.err().unwrap();
    assert!(matches!(error, ControlError::NotRunning { .. }), "{error}");
}

#[tokio::test]
async fn wal_is_handed_out_and_its_absence_explained() {
    let daemon = daemon().await;
    let wal = |number: u32| vec![u8::try_from(number).unwrap(); MIB];
    let archive = |number: u32, bytes: &[u8]| {
        let path = daemon.dir.archived(segment(number), Codec::Zstd);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    archive(1, &zstd::encode_all(&wal(1)[..], 1).unwrap());
    archive(3, &zstd::encode_all(&wal(3)[1..], 1).unwrap());
    fs::write(daemon.dir.streaming_partial(segment(4)), b"the beginning").unwrap();

    let mut client = ControlClient::connect(daemon.home.path()).await.unwrap();
    let main = server_name();
    let file = |number| WalFileName::Segment(segment(number));
    let answer = client.wal(&main, &wanted(file(1), false)).await.unwrap();
    assert_eq!(read(answer).await.unwrap(), wal(1));
    let answer = client.wal(&main, &wanted(file(4), true)).await.unwrap();
    assert!(read(answer).await.unwrap().starts_with(b"the beginning\0"));
    let answer = client.wal(&main, &wanted(file(4), false)).await.unwrap();
    assert!(matches!(answer, WalAnswer::EndOfArchive));

    let (home, segment_1) = (daemon.home.path().to_owned(), file(1));
    let read_by_thread = tokio::task::spawn_blocking(move || {
        let mut client = BlockingClient::connect(&home).unwrap();
        let answer = client.wal(&server_name(), &wanted(segment_1, false)).unwrap();
        let BlockingAnswer::File(mut reader) = answer else { panic!() };
        assert!(reader.body().is_settled());
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    });
    assert_eq!(read_by_thread.await.unwrap().unwrap(), wal(1));

    // A gap, another server, a name that is none: never the end of the archive.
    for (server, name, code) in [
        (&main, file(2), exit_code::GAP),
        (&"other".parse().unwrap(), file(1), exit_code::USAGE),
        (&main, WalFileName::Partial(segment(4)), exit_code::USAGE),
    ] {
        let error = client.wal(server, &wanted(name, true)).await.err().unwrap();
        assert_eq!(error.get_wal_exit_code(), code, "{error}");
    }

    // Damaged in a way that shows only while it is read: it breaks off.
    let answer = client.wal(&main, &wanted(file(3), false)).await.unwrap();
    assert!(read(answer).await.is_err());
    // Or only at its end, when all bytes are there.
    let lock = ServerLock::try_acquire(&daemon.dir, LockKind::Archive).unwrap();
    let size = SegmentSize::new(MIB as u64).unwrap();
    let mut indexes = WalIndexWriters::new(&daemon.dir, size, Arc::new(lock));
    let plain = Plain { size: MIB as u64, crc32c: Crc32c::of(b"another") };
    let form = Codec::Zstd.into();
    let archived = ArchivedWal { segment: segment(1), partial: false, form };
    indexes.append(&[WalIndexRecord::raw(archived, plain)]).unwrap();
    let mut client = ControlClient::connect(daemon.home.path()).await.unwrap();
    let answer = client.wal(&main, &wanted(file(1), false)).await.unwrap();
    assert!(read(answer).await.is_err());
}

#[tokio::test]
async fn what_is_encrypted_is_decrypted_with_the_key_that_is_there_at_the_time() {
    let daemon = daemon().await;
    let secret = age::x25519::Identity::generate();
    let packing = Packing::new(Method::new(Codec::Zstd, 1), &[secret.to_public().into()]);
    let file = ArchivedWal { segment: segment(1), partial: false, form: packing.form() };
    fs::create_dir_all(daemon.dir.wal_dir(file.segment)).unwrap();
    let path = daemon.dir.archived_file(file);
    let mut writer = ArchivedWriter::create(&path, Access::Private, &packing, |file| file).unwrap();
    writer.write_all(&vec![1; MIB]).unwrap();
    writer.finish().unwrap().2.commit().unwrap();

    let mut client = ControlClient::connect(daemon.home.path()).await.unwrap();
    let (main, wanted) = (server_name(), wanted(WalFileName::Segment(segment(1)), true));
    let error = client.wal(&main, &wanted).await.err().unwrap();
    assert_eq!(error.get_wal_exit_code(), exit_code::ENCRYPTED, "{error}");
    assert!(!client.reader(&main, "root").await.unwrap().decrypts);

    let identity = daemon.home.path().join("identity");
    let content = secret.to_string();
    fs::write(&identity, content.expose_secret()).unwrap();
    fs::set_permissions(&identity, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(client.reader(&main, "root").await.unwrap().decrypts);
    let answer = client.wal(&main, &wanted).await.unwrap();
    assert_eq!(read(answer).await.unwrap(), vec![1; MIB]);
}

#[tokio::test]
async fn a_request_that_is_not_known_is_not_the_end_of_the_archive() {
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::TokioIo;

    let daemon = daemon().await;
    let address = address::of(daemon.home.path()).unwrap();
    let stream = net::UnixStream::connect_addr(&address).unwrap();
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::UnixStream::from_std(stream).unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for path in ["/", "/v1/servers/main/wal", "/v2/servers/main/wal/0000000100000000000000FF"] {
        let request = hyper::Request::get(path).body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 501, "{path}");
        response.into_body().collect().await.unwrap();
    }
}

#[tokio::test]
async fn users_get_what_they_may_have() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path(), Access::Private);
    let control = Arc::new(control(&home, &["4711"]));
    for (uid, operator, wal) in [(0, true, true), (4711, false, true), (4712, false, false)] {
        let (mut parts, ()) = hyper::Request::get("/v1/ping").body(()).unwrap().into_parts();
        parts.extensions.insert(ConnectInfo(Peer { uid }));
        let admitted = Operator::from_request_parts(&mut parts, &control).await.is_ok();
        assert_eq!(admitted, operator, "{uid}");
        match WalReader::from_request_parts(&mut parts, &control).await {
            Ok(_) => assert!(wal, "{uid}"),
            Err(denial) => {
                assert!(!wal, "{uid}");
                assert_eq!(denial.into_response().status(), StatusCode::FORBIDDEN);
            }
        }
    }
}

#[tokio::test]
async fn one_daemon_listens_at_a_time() {
    let daemon = daemon().await;
    let error = listen(daemon.home.path()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}
