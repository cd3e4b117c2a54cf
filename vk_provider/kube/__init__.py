"""The only room that speaks to the API server: client, watches, events, certificates.

Objects are JSON as the server sent it; there are no model classes. This room knows how objects
are fetched, kept fresh and written, and who this node is to the cluster. It refuses to know what
they mean: pods' lives belong to `vk_provider.pods`, the Node's content to `vk_provider.node`.
"""
