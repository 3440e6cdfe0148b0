//! What the operator wants: file, environment and arguments become validated settings.
