//! Addresses and sockets.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use crate::{Endpoint, Host, TcpKeepalive};

/// Where exactly to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// An address and port.
    Tcp(SocketAddr),
    /// The path of a socket; an abstract one's begins with `@`.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.ip().fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Every address of a host.
pub(crate) async fn resolve(host: &Host) -> io::Result<Vec<Address>> {
    let (name, known) = match &host.endpoint {
        Endpoint::Tcp { name, address } => (name, *address),
        Endpoint::Unix(directory) => {
            return Ok(vec![Address::Unix(directory.join(format!(".s.PGSQL.{}", host.port)))]);
        }
    };
    if let Some(address) = known.or_else(|| name.parse().ok()) {
        return Ok(vec![Address::Tcp(SocketAddr::new(address, host.port))]);
    }
    let found: Vec<_> =
        tokio::net::lookup_host((name.as_str(), host.port)).await?.map(Address::Tcp).collect();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}

/// Connects to an address over TCP.
pub(crate) async fn connect_tcp(
    address: SocketAddr,
    keepalive: &TcpKeepalive,
) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Messages are written whole; waiting for more of them only delays status updates.
    socket.set_nodelay(true)?;
    set_keepalive(SockRef::from(&socket), keepalive)?;
    socket.connect(address).await
}

fn set_keepalive(socket: SockRef<'_>, keepalive: &TcpKeepalive) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(timeout) = keepalive.user_timeout {
        socket.set_tcp_user_timeout(Some(timeout))?;
    }
    if !keepalive.enabled {
        return Ok(());
    }
    // The system counts in seconds and refuses none at all.
    let at_least_1s = |time: Duration| time.max(Duration::from_secs(1));
    let mut settings = socket2::TcpKeepalive::new();
    if let Some(idle) = keepalive.idle {
        settings = settings.with_time(at_least_1s(idle));
    }
    if let Some(interval) = keepalive.interval {
        settings = settings.with_interval(at_least_1s(interval));
    }
    #[cfg(unix)]
    if let Some(count) = keepalive.count {
        settings = settings.with_retries(count);
    }
    socket.set_tcp_keepalive(&settings)
}

/// Connects to a Unix socket.
#[cfg(unix)]
pub(crate) async fn connect_unix(path: &Path) -> io::Result<tokio::net::UnixStream> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    match path.as_os_str().as_bytes() {
        // The system marks abstract names by a first byte of zero.
        [b'@', name @ ..] => {
            let name = [&[0], name].concat();
            tokio::net::UnixStream::connect(OsStr::from_bytes(&name)).await
        }
        _ => tokio::net::UnixStream::connect(path).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(name: &str, address: Option<&str>) -> Host {
        let address = address.map(|text| text.parse().unwrap());
        Host { endpoint: Endpoint::Tcp { name: name.into(), address }, port: 5432, password: None }
    }

    #[tokio::test]
    async fn hostaddr_replaces_the_lookup() {
        let host = tcp("no-such-name.invalid", Some("::1"));
        let expected = Address::Tcp("[::1]:5432".parse().unwrap());
        assert_eq!(resolve(&host).await.unwrap(), [expected]);
        assert_eq!(
            resolve(&tcp("127.0.0.1", None)).await.unwrap(),
            [Address::Tcp("127.0.0.1:5432".parse().unwrap())]
        );
    }

    #[tokio::test]
    async fn keepalive_settings_reach_the_socket() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let keepalive = TcpKeepalive {
            enabled: true,
            idle: Some(Duration::from_secs(61)),
            interval: Some(Duration::ZERO),
            count: Some(4),
            user_timeout: Some(Duration::from_millis(12_345)),
        };
        let stream = connect_tcp(listener.local_addr().unwrap(), &keepalive).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(61));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(1));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), keepalive.user_timeout);
    }

    #[tokio::test]
    async fn keepalives_can_be_turned_off() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let keepalive = TcpKeepalive { enabled: false, ..TcpKeepalive::default() };
        let stream = connect_tcp(listener.local_addr().unwrap(), &keepalive).await.unwrap();
        assert!(!SockRef::from(&stream).keepalive().unwrap());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_sockets_name_has_the_port_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let _listener =
            tokio::net::UnixListener::bind(directory.path().join(".s.PGSQL.6543")).unwrap();
        let endpoint = Endpoint::Unix(directory.path().into());
        let host = Host { endpoint, port: 6543, password: None };
        let [Address::Unix(path)] = &resolve(&host).await.unwrap()[..] else { panic!() };
        connect_unix(path).await.unwrap();
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn abstract_sockets_are_found_by_their_name() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixListener};

        let name = format!("pgwire-stream-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(format!("{name}/.s.PGSQL.5432")).unwrap();
        let _listener = UnixListener::bind_addr(&address).unwrap();
        let endpoint = Endpoint::Unix(format!("@{name}").into());
        let host = Host { endpoint, port: 5432, password: None };
        let [Address::Unix(path)] = &resolve(&host).await.unwrap()[..] else { panic!() };
        connect_unix(path).await.unwrap();
    }
}
