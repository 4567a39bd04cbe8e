//! What the client says of daemons that are not as they should be.

use super::{Client, ClientError, Request, fake::Served};
use std::{io::ErrorKind, path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

/// A server that reads a request, writes `answer` and closes.
async fn say(path: &Path, answer: &'static [u8]) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(answer).await;
    });
}

async fn ask(answer: &'static [u8]) -> ClientError {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    say(&path, answer).await;
    Client::new(&path).status().await.unwrap_err()
}

#[tokio::test]
async fn no_socket_is_not_reachable() {
    let error = Client::new("/nowhere/admin.sock").status().await.unwrap_err();
    assert!(error.is_unreachable());
    assert_eq!(
        error.to_string(),
        "no daemon at /nowhere/admin.sock: there is no such socket; is the daemon running, and is this its \
         admin.socket (--admin-socket)?"
    );
}

#[tokio::test]
async fn a_dead_socket_is_not_reachable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    let error = Client::new(&path).status().await.unwrap_err();
    assert!(error.is_unreachable() && error.to_string().contains("nobody listens"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_not_reachable() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(Client::new(file.path()).status().await.unwrap_err().is_unreachable());
}

#[tokio::test]
async fn a_daemon_that_closes_gave_no_answer() {
    let error = ask(b"").await;
    assert!(matches!(error, ClientError::NoAnswer { .. }) && error.is_unreachable(), "{error}");
    let error = ask(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"node\":").await;
    assert!(matches!(error, ClientError::NoAnswer { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_answer_of_ours_is_malformed() {
    for answer in [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n".as_slice(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nno!",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
    ] {
        let error = ask(answer).await;
        assert!(matches!(error, ClientError::Malformed { .. }), "{error:?}");
        assert!(!error.is_unreachable());
    }
}

#[tokio::test]
async fn a_daemon_that_hangs_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let _listener = UnixListener::bind(&path).unwrap();
    let client = Client::new(&path).with_patience(Duration::from_millis(50));
    let error = client.status().await.unwrap_err();
    assert!(error.to_string().ends_with("gave no answer: nothing in 50ms"), "{error}");
    let error = client.change(&Request::ConfigReload).await.unwrap_err();
    assert!(error.to_string().ends_with("the change may still be made"), "{error}");
}

#[test]
fn a_socket_of_another_user_is_not_permitted() {
    // Root may open everything, so the one who asks must not be root. A thread of its own has its own user.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: not root, so there is no other user to be");
        return;
    }
    let asker = std::thread::spawn(move || {
        // SAFETY: the system call and not libc's wrapper, which would change every thread of the process.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
        assert_eq!(changed, 0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(Client::new(&path).status()).unwrap_err();
        assert!(matches!(error, ClientError::NotPermitted { .. }) && error.is_unreachable(), "{error}");
        assert!(error.to_string().contains("try sudo"), "{error}");
        let direct = std::os::unix::net::UnixStream::connect(&path).unwrap_err();
        assert_eq!(direct.kind(), ErrorKind::PermissionDenied);
    });
    asker.join().unwrap();
}

#[tokio::test]
async fn a_takeover_leads_from_http_to_a_line() {
    let served = Served::start().await;
    let line = served.client().take_over().await.unwrap();
    let answer = tokio::task::spawn_blocking(move || {
        line.send(&"good day", &[], Duration::from_secs(5)).unwrap();
        line.receive::<String>(Duration::from_secs(5)).unwrap().0
    });
    assert_eq!(answer.await.unwrap(), "good day to you");
    let error = served.client().take_over().await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused { kind, .. } if kind == "conflict"), "{error}");
}
