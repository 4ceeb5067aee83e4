"""From a resource that Envoy refuses to the object, and the field of it, that is to blame."""
