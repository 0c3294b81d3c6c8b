"""What surrounds the core: modes, odd arguments, error sentences, forward mode, constructors."""
