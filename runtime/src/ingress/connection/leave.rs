//! When and how a connection makes room for others.

/// When a connection shall make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ingress) enum Leave {
    /// If it is idle when it hears of it.
    IfIdle,
    /// Unless it has asked for something when it hears of it, and is not idle.
    UnlessAsked,
    /// At once.
    Now,
}

impl Leave {
    pub(super) fn of(code: u8) -> Option<Self> {
        [Self::IfIdle, Self::UnlessAsked, Self::Now]
            .into_iter()
            .find(|leave| *leave as u8 + 1 == code)
    }
}

/// How little would be lost with a connection; the first would be missed least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::ingress) enum Worth {
    /// It has never sent a whole head, and had time for it.
    NeverAsked,
    /// Nothing is in flight.
    Idle,
    /// Its client does not read.
    Unread,
}

impl Worth {
    /// How such a connection is asked to leave.
    pub(in crate::ingress) fn leave(self) -> Leave {
        match self {
            Self::NeverAsked => Leave::UnlessAsked,
            Self::Idle => Leave::IfIdle,
            Self::Unread => Leave::Now,
        }
    }
}
