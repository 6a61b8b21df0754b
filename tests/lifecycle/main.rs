//! The program as a process: how it starts, waits, is asked whether it is ready, and stops.

mod drain;
mod grpc;
mod start;
mod stop;
mod waiting;
mod world;
