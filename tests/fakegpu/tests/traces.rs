//! Traces of devices: what is recorded is what is seen again without the device.

mod node;

use fakegpu::board::PRODUCTS;
use launcher::gpu::observe::{State, observe};
use launcher::gpu::product::product as known;
use launcher::gpu::trace::{Recorded, Traced};
use node::Node;

fn seen_again(trace: &str) -> State {
    let mut recorded = Recorded::parse(trace).unwrap();
    let product = recorded.product();
    observe(&mut recorded, product).unwrap()
}

#[test]
fn what_was_recorded_of_a_model_is_seen_again_without_it() {
    for (name, chip, id) in PRODUCTS {
        let node = Node::new(&[(chip, id)]);
        let product = known(id).unwrap();
        let mut trace = Vec::new();
        let slot = node.devices.into_iter().next().unwrap().function;
        let mut traced = Traced::new(slot, product, &mut trace);
        let state = observe(&mut traced, product).unwrap();
        traced.finish().unwrap();
        assert_eq!(seen_again(std::str::from_utf8(&trace).unwrap()), state, "{name}");
    }
}
