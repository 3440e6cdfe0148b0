//! The manual: prose, and nothing to call.
//!
//! * [`recipes`]: how things are done that take more than one call.
//! * [`capabilities`]: what the library can do, how, and the test that proves it.

#[doc = include_str!("manual/capabilities.md")]
pub mod capabilities {}

// Its programs need what is not in every build.
#[cfg(any(
    doc,
    all(feature = "aws-lc-rs", feature = "manifest", feature = "server", feature = "tokio-rt")
))]
#[doc = include_str!("manual/recipes.md")]
pub mod recipes {}
