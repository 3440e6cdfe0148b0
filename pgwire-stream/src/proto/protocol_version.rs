//! Which version of the protocol is spoken.

use std::fmt;

use crate::{DecodeError, Error, Misuse};

/// The message with which a server names the version, as errors call it.
pub(super) const NEGOTIATION: &str = "NegotiateProtocolVersion";

/// A version of the frontend/backend protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolVersion(u32);

impl ProtocolVersion {
    /// What every server since 7.4 speaks.
    pub const V3_0: Self = Self::new(3, 0);

    /// Longer cancel keys; servers from 18 on. There never was a 3.1.
    pub const V3_2: Self = Self::new(3, 2);

    /// The latest that this library speaks, libpq's `latest`.
    pub const LATEST: Self = Self::V3_2;

    /// The version of these numbers.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self((major as u32) << 16 | minor as u32)
    }

    /// The version as the wire has it: the major number in the upper half.
    pub const fn from_code(code: u32) -> Self {
        Self(code)
    }

    /// As [`from_code`](Self::from_code) takes it.
    pub const fn code(self) -> u32 {
        self.0
    }

    /// The number before the point.
    pub const fn major(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The number behind the point.
    pub const fn minor(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

impl fmt::Debug for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProtocolVersion({self})")
    }
}

/// The versions that a client agrees to: libpq's `min_protocol_version` and
/// `max_protocol_version`.
///
/// The default is 3.0 alone, as in libpq 18: some poolers break on anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolRange {
    /// The lowest that is good enough.
    pub min: ProtocolVersion,
    /// The version that is asked for.
    pub max: ProtocolVersion,
}

impl Default for ProtocolRange {
    fn default() -> Self {
        Self { min: ProtocolVersion::V3_0, max: ProtocolVersion::V3_0 }
    }
}

/// What the client asked for and what was agreed.
#[derive(Debug)]
pub(super) struct Negotiation {
    range: ProtocolRange,
    /// The options (`_pq_.…`) in the startup packet.
    options: Vec<String>,
    answer: Option<ProtocolVersion>,
}

impl Negotiation {
    /// # Errors
    /// If the range is empty, or has versions that never existed.
    pub(super) fn new(range: ProtocolRange) -> Result<Self, Misuse> {
        let exists = |version: ProtocolVersion| {
            version.major() == 3 && version != ProtocolVersion::new(3, 1)
        };
        if range.min > range.max || !exists(range.min) || !exists(range.max) {
            return Err(Misuse::Argument("there are no such versions of the protocol"));
        }
        Ok(Self { range, options: Vec::new(), answer: None })
    }

    /// Notes a parameter of the startup packet, in case it is an option of the protocol.
    pub(super) fn asked_for(&mut self, name: &str) {
        if name.starts_with(OPTION_PREFIX) {
            self.options.push(name.to_owned());
        }
    }

    /// The version in use: what was asked for, unless the server has said otherwise.
    pub(super) fn version(&self) -> ProtocolVersion {
        self.answer.unwrap_or(self.range.max)
    }

    /// Hears NegotiateProtocolVersion, and believes it where libpq does
    /// (`pqGetNegotiateProtocolVersion3`).
    ///
    /// # Errors
    /// If the server contradicts itself, or is too old.
    pub(super) fn answered(
        &mut self,
        version: ProtocolVersion,
        unrecognized: &[String],
    ) -> Result<(), Error> {
        let wrong = |problem| Err(DecodeError { message: NEGOTIATION, problem }.into());
        if self.answer.is_some() {
            return wrong("it came twice");
        }
        if version > self.range.max {
            return wrong("the version is higher than what was asked for");
        }
        if version < ProtocolVersion::V3_0 {
            return wrong("the version is older than 3.0");
        }
        if version == ProtocolVersion::new(3, 1) {
            return wrong("the version is 3.1, which does not exist");
        }
        if version == self.range.max && unrecognized.is_empty() {
            return wrong("it changes nothing");
        }
        if unrecognized.iter().any(|name| !name.starts_with(OPTION_PREFIX)) {
            return wrong("it names an option without the prefix _pq_.");
        }
        if unrecognized.iter().any(|name| !self.options.contains(name)) {
            return wrong("it names an option that was not asked for");
        }
        if version < self.range.min {
            return Err(Error::ProtocolVersion { offered: version, wanted: self.range.min });
        }
        self.answer = Some(version);
        Ok(())
    }
}

/// What the names of protocol options begin with, unlike those of settings.
pub(super) const OPTION_PREFIX: &str = "_pq_.";

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: ProtocolVersion = ProtocolVersion::V3_0;
    const NEW: ProtocolVersion = ProtocolVersion::V3_2;

    fn negotiation(min: ProtocolVersion) -> Negotiation {
        let mut negotiation = Negotiation::new(ProtocolRange { min, max: NEW }).unwrap();
        negotiation.asked_for("user");
        negotiation.asked_for("_pq_.a");
        negotiation
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn versions_are_written_as_on_the_wire() {
        assert_eq!(NEW.code(), 196_610);
        assert_eq!(ProtocolVersion::from_code(196_608), OLD);
        assert_eq!(NEW.to_string(), "3.2");
    }

    #[test]
    fn an_older_version_is_agreed_to_if_it_is_good_enough() {
        let mut negotiation = negotiation(OLD);
        assert_eq!(negotiation.version(), NEW);
        negotiation.answered(OLD, &names(&["_pq_.a"])).unwrap();
        assert_eq!(negotiation.version(), OLD);
    }

    #[test]
    fn a_server_that_is_too_old_is_left() {
        let error = negotiation(NEW).answered(OLD, &[]).unwrap_err();
        assert!(matches!(error, Error::ProtocolVersion { offered: OLD, wanted: NEW }), "{error}");
    }

    #[test]
    fn contradictions_are_refused() {
        let new = ProtocolVersion::new;
        for (version, unrecognized, problem) in [
            (new(3, 3), vec![], "higher"),
            (new(2, 0), vec![], "older"),
            (new(3, 1), vec![], "does not exist"),
            (NEW, vec![], "changes nothing"),
            (OLD, names(&["a"]), "prefix"),
            (OLD, names(&["_pq_.b"]), "not asked for"),
        ] {
            let error = negotiation(OLD).answered(version, &unrecognized).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
        }
        let mut twice = negotiation(OLD);
        twice.answered(OLD, &[]).unwrap();
        let error = twice.answered(OLD, &[]).unwrap_err();
        assert!(error.to_string().contains("twice"), "{error}");
    }

    #[test]
    fn impossible_ranges_are_misuse() {
        let new = ProtocolVersion::new;
        for (min, max) in [(NEW, OLD), (new(3, 1), NEW), (OLD, new(3, 1)), (new(2, 0), NEW)] {
            assert!(Negotiation::new(ProtocolRange { min, max }).is_err());
        }
    }
}
