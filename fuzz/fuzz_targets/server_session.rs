#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgwire_stream::fuzzing::server_session(data));
