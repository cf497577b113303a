//! The whole device, as a driver and programs see it.

mod data;
mod driver;
mod hostile;
mod management;
