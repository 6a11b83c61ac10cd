//! The proof by attack: the built binary is killed, its disk fills up, its power fails and its etcd loses members, all under
//! load, with clients that remember every acknowledgement and every event of their watches. Nothing may be lost, told twice
//! or told in another order than it happened.
//!
//! Each test has its own network and mounts, so it needs root. `PILOTHOUSE_ROUNDS` says how many rounds there are (10; the
//! dearer attacks have a part of that), `PILOTHOUSE_BINARY` another executable than the one built with the tests, and
//! `PILOTHOUSE_READY_MS` how soon that has to be ready again.

mod arena;
mod dice;
mod full;
mod kill;
mod load;
mod members;
mod platter;
mod power;
mod server;
mod trace;
mod watch;

use std::error::Error;

type Fallible<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;
