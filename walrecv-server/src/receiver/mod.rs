//! One server's WAL: where to start, stream, write, flush, follow timelines, reconnect, archive.
