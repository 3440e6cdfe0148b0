//! What a connection string is silent about: service file, environment, defaults, passwords.

use super::environment::Environment;
use super::passfile::PassFile;
use super::settings::Settings;
use super::{Config, ConfigError, RootCert, SslCertMode, service};

impl Config {
    /// Reads a connection string, and adds what it is silent about: from the service file, if it
    /// or `PGSERVICE` names a service, then from the `PG*` environment variables, then from
    /// `~/.postgresql` and the operating system. If that gives no password, it is looked up in the
    /// password file for every host.
    ///
    /// Reads small files, and blocks meanwhile.
    ///
    /// # Errors
    ///
    /// Besides mistakes in the string, the service file and the variables: a service that is not
    /// defined, and a password file that is named but missing, or that cannot be read, or that
    /// others can.
    pub fn load(text: &str) -> Result<Self, ConfigError> {
        Self::load_in(text, &Environment::of_process())
    }

    pub(super) fn load_in(text: &str, environment: &Environment<'_>) -> Result<Self, ConfigError> {
        let mut settings = Settings::parse(text)?;
        environment.fill_in_service(&mut settings)?;
        service::fill_in(&mut settings, environment)?;
        environment.fill_in(&mut settings)?;
        let mut config = settings.to_config(&environment.socket_directory())?;
        config.use_default_certificates(environment);
        let user = match config.user.take().or_else(environment.user_name) {
            Some(user) => user,
            None => {
                return Err(ConfigError::InvalidValue {
                    key: "user",
                    problem:
                        "it is not set, and the operating system does not know the user's name"
                            .to_owned(),
                });
            }
        };
        config.look_up_passwords(&user, environment)?;
        config.user = Some(user);
        Ok(config)
    }

    fn use_default_certificates(&mut self, environment: &Environment<'_>) {
        let file = |name| environment.certificate_file(name);
        if self.ssl_root_cert.is_none() {
            self.ssl_root_cert = file("root.crt").map(RootCert::File);
        }
        let of_system = self.ssl_root_cert == Some(RootCert::System);
        if self.ssl_crl.is_none() && self.ssl_crl_dir.is_none() && !of_system {
            self.ssl_crl = file("root.crl");
        }
        if self.ssl_cert_mode != SslCertMode::Disable {
            self.ssl_cert = self.ssl_cert.take().or_else(|| file("postgresql.crt"));
            self.ssl_key = self.ssl_key.take().or_else(|| file("postgresql.key"));
        }
    }

    fn look_up_passwords(
        &mut self,
        user: &str,
        environment: &Environment<'_>,
    ) -> Result<(), ConfigError> {
        if self.password.is_some() {
            return Ok(());
        }
        let Some(path) = self.passfile.clone().or_else(|| environment.password_file()) else {
            return Ok(());
        };
        let Some(file) = PassFile::read(&path)? else {
            if self.passfile.is_none() {
                return Ok(());
            }
            let problem = "it does not exist".to_owned();
            return Err(ConfigError::File { what: "password file", path, problem });
        };
        let database = self.dbname.as_deref().unwrap_or(user);
        for host in &mut self.hosts {
            // A role has one password for all databases. Those who keep a line for replication
            // call its database `replication`, as pg_basebackup and standbys do.
            host.password = file
                .password(host, "replication", user)
                .or_else(|| file.password(host, database, user));
        }
        Ok(())
    }
}
