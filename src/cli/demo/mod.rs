//! `postrider demo`

mod check;
mod samples;
