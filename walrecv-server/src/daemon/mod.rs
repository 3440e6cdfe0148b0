//! Many servers in one process, and the control socket.
