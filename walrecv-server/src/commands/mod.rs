//! One file per command: what each does, as a value.
