//! The Container Runtime Interface v1: messages, services and a client over a unix socket.
