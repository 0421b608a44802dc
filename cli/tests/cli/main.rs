//! The command line as its users see it: the built binary, a hermetic environment, and a small
//! server that plays the API. Nothing outside this machine, no fixed port, no sleep.

#[cfg(test)]
mod command;
#[cfg(test)]
mod server;

#[cfg(test)]
mod access;
#[cfg(test)]
mod deploy;
#[cfg(test)]
#[cfg(feature = "serve")]
mod dev;
#[cfg(test)]
mod here;
mod inspect;
#[cfg(test)]
mod invoke;
#[cfg(test)]
mod key;
#[cfg(test)]
mod login;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod manage;
#[cfg(test)]
mod metering;
#[cfg(test)]
mod new;
#[cfg(test)]
mod project;
#[cfg(test)]
#[cfg(feature = "serve")]
mod serve;
#[cfg(test)]
mod token;
#[cfg(test)]
mod usage;
