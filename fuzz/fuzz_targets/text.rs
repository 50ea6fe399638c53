#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| darkport_exporter::fuzzing::target("text")(bytes));
