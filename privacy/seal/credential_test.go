package seal

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestCredentialRoundTrip(t *testing.T) {
	f := newFederation(t, "shop", noon)
	box := newTestBox(t)
	for role, cred := range f.creds {
		dir := t.TempDir()
		if _, err := LoadCredential(dir, box); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: before it is saved: %v", role, err)
		}
		if err := cred.Save(dir, box); err != nil {
			t.Fatal(err)
		}
		got, err := LoadCredential(dir, box)
		if err != nil {
			t.Fatal(err)
		}
		if !got.Key.Equal(cred.Key) || !slices.EqualFunc(got.Chain, cred.Chain, slices.Equal) {
			t.Errorf("%s: the credential changed", role)
		}
		if _, err := VerifyChain(got.Chain, f.cert(), noon); err != nil {
			t.Errorf("%s: %v", role, err)
		}
		path := filepath.Join(dir, credentialFile)
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", role, info.Mode(), err)
		}
		if _, err := LoadCredential(dir, newTestBox(t)); !errors.Is(err, ErrSealed) {
			t.Errorf("%s: under another key: %v", role, err)
		}
	}
}

func TestCredentialMustFitItsKey(t *testing.T) {
	f := newFederation(t, "shop", noon)
	chain := f.creds[RoleNode].Chain
	for name, cred := range map[string]*Credential{
		"another key":    {chain, newKey(t)},
		"no key":         {chain, nil},
		"no certificate": {nil, newKey(t)},
		"garbage":        {[][]byte{[]byte("x")}, newKey(t)},
	} {
		dir := t.TempDir()
		if err := cred.Save(dir, newTestBox(t)); err == nil {
			t.Errorf("%s: saved", name)
		}
		if got := listing(t, dir); got != "" {
			t.Errorf("%s: left %q", name, got)
		}
	}
}
