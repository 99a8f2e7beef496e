//! `sqlx::migrate!` reads `migrations/` when the library is compiled; cargo has to be told that a new file there matters.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
