//! walrecv-server's reader of archives, alone: the rest of that crate takes minutes to compile.
#![no_main]

#[path = "../../walrecv-server/src/storage/tar.rs"]
mod tar;

libfuzzer_sys::fuzz_target!(|data: &[u8]| tar::fuzzing::tar(data));
