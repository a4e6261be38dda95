package main

import (
	"choir.example/privacy/seal"
)

// rootFlags say where the federation's root key is and what opens it.
type rootFlags struct {
	RootKey    string `name:"root-key" help:"The root key file, encrypted by age. Keep it off the coordinators." placeholder:"FILE" default:"root.key" type:"path"`
	Passphrase string `name:"passphrase-file" help:"File of mode 0600 whose first line is the root key's passphrase; - is standard input. Without it you are asked." placeholder:"FILE" env:"CHOIR_PASSPHRASE_FILE"`
}

// passphrase reads or asks for the root key's passphrase.
func (r *rootFlags) passphrase(t *terminal, fresh bool) (string, error) {
	if r.Passphrase != "" {
		return readLine("passphrase file", r.Passphrase)
	}
	return askPassphrase(t, "passphrase of "+r.RootKey, fresh)
}

// open reads the root key.
func (r *rootFlags) open(t *terminal) (*seal.Root, error) {
	if _, err := readSecret("root key", r.RootKey); err != nil {
		return nil, err
	}
	pass, err := r.passphrase(t, false)
	if err != nil {
		return nil, err
	}
	return seal.ReadRootKey(r.RootKey, pass)
}
