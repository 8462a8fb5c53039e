//! The controller of a farm: feeds, store, broker, control loop, console.

pub mod broker;
pub mod cli;
pub mod clock;
pub mod coins;
pub mod config;
pub mod console;
pub mod control;
pub mod controller;
pub mod demo;
pub mod feeds;
pub mod gateway;
pub mod gonka;
pub mod hashprice;
pub mod preview;
pub mod store;
pub mod view;
pub mod web;
