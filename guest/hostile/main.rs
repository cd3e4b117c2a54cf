//! The guest agent turned against its host, for tests alone: it is the real one until Configure
//! gives it a hostname that names a way to break the contract, `late-WAY` a moment after its first
//! container's start. With any other hostname it stays an honest guest, so that one host has both.

mod calls;
mod lies;
mod wire;

fn main() {
    vk_guest::run(async |service| {
        let hostile = calls::Hostile::new(service);
        let [control, bulk] = vk_guest::PORTS;
        tokio::try_join!(
            wire::serve(control, hostile.clone()),
            wire::serve(bulk, hostile)
        )?;
        Ok(())
    });
}
