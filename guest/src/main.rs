//! The guest agent; all of it is in the library, which the test double in `hostile/` uses too.

use vk_guest::serve::serve;
use vk_guest::PORTS;

fn main() {
    vk_guest::run(async |service| {
        let [control, bulk] = PORTS;
        tokio::try_join!(serve(control, service.clone()), serve(bulk, service))?;
        Ok(())
    });
}
