package coordinator

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// forms are the ways in which a value may stand in bytes: as it is, in hex, in base64 of each alignment, as in JSON.
func forms(value []byte) (out [][]byte) {
	out = append(out, value, []byte(hex.EncodeToString(value)), []byte(strings.ToUpper(hex.EncodeToString(value))))
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), value...))
		whole := text[4*((shift+2)/3) : len(text)-4] // groups that hold nothing but the value
		out = append(out, []byte(whole), []byte(strings.NewReplacer("+", "-", "/", "_").Replace(whole)))
	}
	return out
}

func holds(b, value []byte) bool {
	for _, form := range forms(value) {
		if bytes.Contains(b, form) {
			return true
		}
	}
	return false
}

func TestFormsAreFound(t *testing.T) {
	value := []byte("\xff\xfea value of thirty-two bytes or so")
	for shift := range 6 {
		b := append(bytes.Repeat([]byte("x"), shift), append(bytes.Clone(value), "rest"...)...)
		for name, text := range map[string]string{"raw": string(b), "hex": fmt.Sprintf("%x", b), "HEX": fmt.Sprintf("%X", b),
			"base64": base64.StdEncoding.EncodeToString(b), "base64url": base64.RawURLEncoding.EncodeToString(b)} {
			if !holds([]byte(text), value) {
				t.Errorf("not found in %s after %d bytes", name, shift)
			}
			if holds([]byte(text), []byte("another value of thirty-two bytes")) {
				t.Errorf("another value is found in %s", name)
			}
		}
	}
}

// What coordinators replicate, decrypted, holds no private key: not in an entry of the log, nor in the state as a
// snapshot carries it, nor in a blob. Public keys are there.
func TestNoPrivateKeyIsReplicated(t *testing.T) {
	f := startFederation(t, 3, nil, Observer{})
	nodes := f.enrol("n1", "n2")
	token := f.token(time.Hour)
	f.submit(testJob(t, 1))
	f.finish(nodes)

	secrets, public := map[string][]byte{"the secret of a token": token.Secret}, map[string][]byte{}
	add := func(whose string, key ed25519.PrivateKey) {
		secrets[whose+" key"], public[whose+" key"] = key.Seed(), key.Public().(ed25519.PublicKey)
	}
	for _, v := range f.voters {
		m := f.member(v.Name)
		add(v.Name+"'s", m.deps.Credential.Key)
		secrets[v.Name+"'s issuing key"] = m.deps.Issuer.Key.Seed()
		m.epochs.mu.Lock()
		keys := slices.Clone(m.epochs.keys)
		m.epochs.mu.Unlock()
		for _, k := range keys {
			secrets[fmt.Sprintf("%s's epoch key %d", v.Name, k.Epoch)] = ageSecret(t, k.Encode())
		}
		unseal, err := os.ReadFile(filepath.Join(m.cfg.Dir, "keys", "unseal.key"))
		if err != nil {
			t.Fatal(err)
		}
		secrets[v.Name+"'s unsealing key"] = ageSecret(t, unseal)
	}
	for _, n := range nodes {
		add(n.name+"'s", n.cred.Key)
	}
	for _, v := range f.voters {
		for where, b := range replicated(t, f.member(v.Name)) {
			for whose, key := range secrets {
				if holds(b, key) {
					t.Errorf("%s of %s holds %s", where, v.Name, whose)
				}
			}
			for whose, key := range public {
				if where != "blobs" && !holds(b, key) {
					t.Errorf("%s of %s does not hold the public half of %s", where, v.Name, whose)
				}
			}
		}
	}
}

// ageSecret is the secret key in a text that ends with it.
func ageSecret(t *testing.T, b []byte) []byte {
	t.Helper()
	i := bytes.LastIndex(b, []byte("AGE-SECRET-KEY-"))
	if i < 0 {
		t.Fatal("there is no secret key")
	}
	return bytes.TrimSpace(b[i:])
}

// replicated is the plaintext of all that a coordinator shares with the others.
func replicated(t *testing.T, m *testMember) map[string][]byte {
	t.Helper()
	s, out := m.replica.State(), map[string][]byte{}
	first, err := m.replica.store.FirstIndex()
	if err != nil || first != 1 {
		t.Fatalf("the log begins at %d, %v", first, err)
	}
	for i := first; i <= s.Index; i++ {
		var l raft.Log
		if err := m.replica.store.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		out["the log"] = append(append(out["the log"], l.Data...), l.Extensions...)
	}
	if err := m.replica.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	snaps, err := m.replica.snaps.List()
	if err != nil || len(snaps) != 1 {
		t.Fatalf("%d snapshots, %v", len(snaps), err)
	}
	_, rc, err := m.replica.snaps.Open(snaps[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if out["the snapshot"], err = io.ReadAll(rc); err != nil {
		t.Fatal(err)
	}
	ids := liveBlobs(s)
	for _, r := range s.Jobs["job"].Rounds {
		for _, b := range r.Batches {
			ids = append(ids, b.ID)
		}
	}
	for _, id := range ids {
		b, err := m.blobs.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		out["blobs"] = append(out["blobs"], b...)
	}
	if len(ids) < 6 || s.Log.Size() < 20 {
		t.Errorf("%d blobs, %d records", len(ids), s.Log.Size())
	}
	return out
}
