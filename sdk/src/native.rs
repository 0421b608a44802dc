//! The platform when there is none: unit tests on the host. Nothing arrives from outside here.

use std::task::{Context, Poll};

use http_body::{Frame, SizeHint};

use crate::{Bytes, Result};

/// A body that is still on its way in. There is none on the host.
#[derive(Debug)]
pub(crate) enum Incoming {}

impl Incoming {
    pub(crate) fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        match *self {}
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match *self {}
    }
}

/// Makes the handler the component's. Only a component has something to export.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($handler:ident) => {};
}
