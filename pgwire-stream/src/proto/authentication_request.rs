//! What a server asks to know who the client is.

use bytes::{BufMut, Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::Message;

use super::frame::put_text;
use crate::Misuse;

/// An authentication request: the message `R`. All but [`Ok`](Self::Ok) and
/// [`SaslFinal`](Self::SaslFinal) are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthenticationRequest {
    /// The client is let in.
    Ok,
    /// Kerberos V5; servers before 9.3.
    KerberosV5,
    /// The password as it is.
    CleartextPassword,
    /// The password, hashed.
    Md5Password {
        /// To be hashed with it.
        salt: [u8; 4],
    },
    /// SCM credentials; servers before 9.1.
    ScmCredential,
    /// GSSAPI.
    Gss,
    /// A step of GSSAPI or SSPI.
    GssContinue(Bytes),
    /// SSPI.
    Sspi,
    /// One of these SASL mechanisms.
    Sasl {
        /// Their names, the preferred one first.
        mechanisms: Vec<String>,
    },
    /// A step of the SASL exchange.
    SaslContinue(Bytes),
    /// The server's last word in the SASL exchange, which proves that it knows the password, too.
    SaslFinal(Bytes),
}

impl AuthenticationRequest {
    pub(super) fn from_library(message: Message) -> Option<Self> {
        Some(match message {
            Message::AuthenticationOk => Self::Ok,
            Message::AuthenticationKerberosV5 => Self::KerberosV5,
            Message::AuthenticationCleartextPassword => Self::CleartextPassword,
            Message::AuthenticationMd5Password(body) => Self::Md5Password { salt: body.salt() },
            Message::AuthenticationScmCredential => Self::ScmCredential,
            Message::AuthenticationGss => Self::Gss,
            Message::AuthenticationGssContinue(body) => {
                Self::GssContinue(Bytes::copy_from_slice(body.data()))
            }
            Message::AuthenticationSspi => Self::Sspi,
            Message::AuthenticationSasl(body) => {
                let mechanisms = body.mechanisms().map(|name| Ok(name.to_owned())).collect();
                Self::Sasl { mechanisms: mechanisms.ok()? }
            }
            Message::AuthenticationSaslContinue(body) => {
                Self::SaslContinue(Bytes::copy_from_slice(body.data()))
            }
            Message::AuthenticationSaslFinal(body) => {
                Self::SaslFinal(Bytes::copy_from_slice(body.data()))
            }
            _ => return None,
        })
    }

    /// # Errors
    /// If the name of a mechanism contains a zero byte.
    pub(super) fn encode(&self, out: &mut BytesMut) -> Result<(), Misuse> {
        out.put_u32(self.code());
        match self {
            Self::Ok
            | Self::KerberosV5
            | Self::CleartextPassword
            | Self::ScmCredential
            | Self::Gss
            | Self::Sspi => {}
            Self::Md5Password { salt } => out.put_slice(salt),
            Self::GssContinue(data) | Self::SaslContinue(data) | Self::SaslFinal(data) => {
                out.put_slice(data);
            }
            Self::Sasl { mechanisms } => {
                for name in mechanisms {
                    put_text(name, out)?;
                }
                out.put_u8(0);
            }
        }
        Ok(())
    }

    /// The name of the authentication method that it belongs to.
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Ok => "trust",
            Self::KerberosV5 => "Kerberos V5",
            Self::CleartextPassword => "password",
            Self::Md5Password { .. } => "MD5",
            Self::ScmCredential => "SCM credential",
            Self::Gss | Self::GssContinue(_) => "GSSAPI",
            Self::Sspi => "SSPI",
            Self::Sasl { .. } | Self::SaslContinue(_) | Self::SaslFinal(_) => "SASL",
        }
    }

    const fn code(&self) -> u32 {
        match self {
            Self::Ok => 0,
            Self::KerberosV5 => 2,
            Self::CleartextPassword => 3,
            Self::Md5Password { .. } => 5,
            Self::ScmCredential => 6,
            Self::Gss => 7,
            Self::GssContinue(_) => 8,
            Self::Sspi => 9,
            Self::Sasl { .. } => 10,
            Self::SaslContinue(_) => 11,
            Self::SaslFinal(_) => 12,
        }
    }
}
