//! The parts of the path under criterion: `cargo bench --no-default-features --bench parts`.
//!
//! For looking closer at one part while working on it. What is recorded and gated are instruction counts
//! (`scripts/bench.sh instructions`), since times wander on shared machines.

#[path = "engine/parts.rs"]
mod parts;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parts");
    for mut part in parts::all() {
        group.throughput(Throughput::Elements(part.times.into()));
        group.bench_function(&part.name, |bencher| bencher.iter(&mut part.run));
    }
    group.finish();
}

criterion_group!(benches, all);
criterion_main!(benches);
