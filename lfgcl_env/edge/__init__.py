"""The edge: choosing by name, writing files whole, and checking what people and files give."""
