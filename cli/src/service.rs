//! What the service manager is told of a node's state, where there is one that asks (sd_notify(3)).

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// The manager is this machine's and answers nothing; one that does not even listen holds up nobody.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sends assignments such as `READY=1`, one per line, to the socket that `NOTIFY_SOCKET` names: a path,
/// or with `@` in place of its first byte an abstract name. Does nothing when there is none.
///
/// # Errors
/// When the socket cannot be used: the manager does not know then.
pub(crate) fn notify(state: &str) -> io::Result<()> {
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}
