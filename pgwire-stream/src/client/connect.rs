//! From a configuration to a client that is logged in.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::ReplicationClient;
use super::session_attrs::check_session;
#[cfg(feature = "tls")]
use crate::TlsConfig;
use crate::connection::Connection;
#[cfg(not(feature = "tls"))]
use crate::net::TlsConfig;
use crate::net::{self, Stream, TlsInUse};
use crate::proto::{Credentials, TlsBinding};
use crate::{Config, Error, Host, Password, Result, ServerVersion, TargetSessionAttrs, Violation};

/// What the connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Physical replication: no database, and no SQL.
    Physical,
    /// Replication commands and SQL, in a database.
    Database,
}

impl ReplicationClient {
    /// Connects for physical replication, to the first host of the configuration that lets us in
    /// and is what `target_session_attrs` asks for. As with libpq, a host that refuses the login
    /// ends the search: only those that cannot be reached, or are not suitable, are passed over.
    ///
    /// Cancel-safe: dropping the future closes what was opened.
    ///
    /// Proving a password by SCRAM is computed where the future is polled: a few milliseconds, and
    /// some tens where the server wants as many iterations as are allowed, 100000.
    ///
    /// # Errors
    /// [`Error::Connect`] with one cause per address that was tried; [`Error::Config`] where the
    /// configuration cannot be used at all.
    pub async fn connect(config: &Config) -> Result<Self> {
        connect(config, None, Purpose::Physical).await
    }

    /// The same with a database (`dbname`, else the user's name), so that
    /// [`query`](Self::query) can be used (servers from 10 on). Access is decided by the
    /// database's lines in `pg_hba.conf`, not by those for `replication`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_database(config: &Config) -> Result<Self> {
        connect(config, None, Purpose::Database).await
    }

    /// [`connect`](Self::connect) with TLS that was configured before: from the same files for
    /// many connections, or in a way of one's own.
    ///
    /// `sslmode` still decides whether it is insisted on: with the default, `prefer`, a server that
    /// has no TLS, or fails in its handshake, is talked to without it.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    #[cfg(feature = "tls")]
    pub async fn connect_with(config: &Config, tls: TlsConfig) -> Result<Self> {
        connect(config, Some(tls), Purpose::Physical).await
    }

    /// [`connect_database`](Self::connect_database) with TLS that was configured before.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    #[cfg(feature = "tls")]
    pub async fn connect_database_with(config: &Config, tls: TlsConfig) -> Result<Self> {
        connect(config, Some(tls), Purpose::Database).await
    }

    /// The host that this connection leads to: as configured, with the address at which it was
    /// found, and without a password. As the only one of [`Config::hosts`], it leads to the same
    /// server again, where a list or a name may lead elsewhere.
    pub fn host(&self) -> Host {
        self.connection.stream().route().host()
    }

    /// Which TLS the connection is encrypted with; `None` where it is not.
    pub fn tls(&self) -> Option<TlsInUse> {
        self.connection.stream().tls_in_use()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationClient<S> {
    /// Logs in for physical replication over a stream that is connected already: a tunnel, TLS of
    /// one's own, a simulation, a test. Hosts and TLS options of the configuration play no part, so
    /// `channel_binding=require` cannot be met.
    ///
    /// # Errors
    /// If the server refuses, or does not speak PostgreSQL's protocol.
    pub async fn from_stream(stream: S, config: &Config) -> Result<Self> {
        login(stream, config, config.password.clone(), TlsBinding::Unknown, Purpose::Physical).await
    }

    /// The same for replication commands and SQL in a database.
    ///
    /// # Errors
    /// As [`from_stream`](Self::from_stream).
    pub async fn from_stream_database(stream: S, config: &Config) -> Result<Self> {
        login(stream, config, config.password.clone(), TlsBinding::Unknown, Purpose::Database).await
    }
}

async fn connect(
    config: &Config,
    tls: Option<TlsConfig>,
    purpose: Purpose,
) -> Result<ReplicationClient> {
    // Boxed: all that a handshake needs would else be a part of whatever future once connects, for as
    // long as that lives.
    let attempt = |tls, wanted| Box::pin(connect_to(config, tls, purpose, wanted));
    match config.target_session_attrs {
        TargetSessionAttrs::PreferStandby => {
            match attempt(tls.clone(), TargetSessionAttrs::Standby).await {
                Err(Error::Connect(attempts)) if !net::was_refused(&attempts) => {
                    attempt(tls, TargetSessionAttrs::Any).await
                }
                decided => decided,
            }
        }
        wanted => attempt(tls, wanted).await,
    }
}

async fn connect_to(
    config: &Config,
    tls: Option<TlsConfig>,
    purpose: Purpose,
    wanted: TargetSessionAttrs,
) -> Result<ReplicationClient> {
    net::connect_any(config, tls, |stream: Stream, host| async move {
        let binding = match (stream.is_tls(), stream.channel_binding()) {
            (false, _) => TlsBinding::NoTls,
            (true, None) => TlsBinding::Undefined,
            (true, Some(hash)) => TlsBinding::ServerEndPoint(Bytes::copy_from_slice(hash)),
        };
        let password = config.password_for(&host).cloned();
        let mut client = login(stream, config, password, binding, purpose).await?;
        check_session(&mut client, wanted).await?;
        Ok(client)
    })
    .await
}

async fn login<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    config: &Config,
    password: Option<Password>,
    tls: TlsBinding,
    purpose: Purpose,
) -> Result<ReplicationClient<S>> {
    let user = config.user.as_deref().ok_or(crate::Misuse::Argument("no user is configured"))?;
    let mut credentials = Credentials::new(user, password);
    credentials.require_auth = config.require_auth.clone();
    credentials.channel_binding = config.channel_binding;
    credentials.tls = tls;
    let mut parameters = vec![("user", user), ("client_encoding", "UTF8")];
    match purpose {
        Purpose::Physical => parameters.push(("replication", "true")),
        Purpose::Database => {
            parameters.push(("replication", "database"));
            parameters.push(("database", config.dbname.as_deref().unwrap_or(user)));
        }
    }
    if let Some(name) = config.application_name() {
        parameters.push(("application_name", name));
    }
    if let Some(options) = &config.options {
        parameters.push(("options", options));
    }
    let connection = Connection::login(stream, credentials, config.protocols, parameters).await?;
    let version = connection
        .session()
        .parameter("server_version")
        .and_then(ServerVersion::parse_text)
        .ok_or(Violation::Column { command: "the login", column: "server_version" })?;
    tracing::debug!(%version, "connected");
    Ok(ReplicationClient::new(connection, version))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::SslMode;
    use crate::net::test_config::config;

    #[tokio::test]
    async fn a_refused_login_is_not_repeated_in_search_of_any_server() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let logins = Arc::new(AtomicUsize::new(0));
        let counter = logins.clone();
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let _ = tcp.read(&mut [0; 1000]).await;
                let _ = tcp.write_all(b"E\0\0\0\x17SFATAL\0C28P01\0Mno\0\0").await;
            }
        });
        let mut config = config(SslMode::Disable, &[port]);
        config.target_session_attrs = TargetSessionAttrs::PreferStandby;
        let error = ReplicationClient::connect(&config).await.err().unwrap();
        assert!(error.to_string().contains("28P01"), "{error}");
        assert_eq!(logins.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_stream_that_somebody_else_has_encrypted_is_good_for_scram() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let mut config = config(SslMode::Disable, &[]);
        config.password = Some(Password::new("secret"));
        let login = async { ReplicationClient::from_stream(ours, &config).await.map(drop) };
        let server = async {
            assert_ne!(theirs.read(&mut [0; 1000]).await.unwrap(), 0);
            let offer = b"R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
            theirs.write_all(offer).await.unwrap();
            let mut answer = [0; 19];
            theirs.read_exact(&mut answer).await.unwrap();
            drop(theirs);
            answer
        };
        let (_, answer) = tokio::join!(login, server);
        assert_eq!(&answer[5..], b"SCRAM-SHA-256\0");
    }
}
