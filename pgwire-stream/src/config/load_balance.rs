//! In which order servers are tried.

/// In which order the hosts are tried, and the addresses of each: libpq's `load_balance_hosts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadBalanceHosts {
    /// As they are listed, and as the system's resolver gives them.
    #[default]
    Disable,
    /// In another, random order for each connection.
    Random,
}

impl LoadBalanceHosts {
    /// Every choice.
    pub(super) const ALL: [Self; 2] = [Self::Disable, Self::Random];

    /// The spelling in connection strings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Random => "random",
        }
    }
}
