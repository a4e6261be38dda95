package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"choir.example/privacy/seal"
)

// rotation is the record of a rotation by which a new root certifies the coordinators as they are; the federation goes on
// with it.
func (f *federation) rotation(retire bool) *RootRotated {
	f.t.Helper()
	next, err := seal.NewRoot("shop", noon, f.random)
	if err != nil {
		f.t.Fatal(err)
	}
	r := &RootRotated{Old: sha256.Sum256(f.root.Certificate().Raw), Root: next.Certificate().Raw, Retired: retire, TimeMS: noon.UnixMilli()}
	if r.Cross, err = f.root.CertifySuccessor(next.Certificate(), noon); err != nil {
		f.t.Fatal(err)
	}
	f.root = next
	for _, name := range f.names {
		c := f.anew(name, 2*month)
		r.Coordinators = append(r.Coordinators, c)
		f.chains[name] = c.Chain
	}
	return r
}

// anew is certificates of the present root for a coordinator. Its issuing key follows from its name.
func (f *federation) anew(name string, life time.Duration) Certified {
	f.t.Helper()
	sum := sha256.Sum256([]byte("issuer " + name))
	issuer, err := f.root.CertifyIssuer(name, ed25519.NewKeyFromSeed(sum[:]).Public().(ed25519.PublicKey), noon, life)
	if err != nil {
		f.t.Fatal(err)
	}
	return Certified{name, f.certify(seal.RoleCoordinator, name, f.keys[name], life), issuer}
}

func (f *federation) admits(key, replaces [32]byte, name string) *OfficerAdmitted {
	return &OfficerAdmitted{key, replaces, name, f.root.AdmitOfficer(key, replaces, name)}
}

// succession is a story with two rotations, the second of a root that was stolen, a renewal and three officers.
func (f *federation) succession() []Record {
	f.genesis.Officers = [][32]byte{dig(0x0a)}
	records := append(f.story(), &TokenCreated{"t-unused", "node", 1}, f.admits(dig(0x0b), [32]byte{}, "olaf"), f.rotation(false))
	renewed := f.anew("b", 3*month)
	f.chains["b"] = renewed.Chain
	records = append(records, &CoordinatorRenewed{renewed, noon.UnixMilli()}, f.admits(dig(0x0c), dig(0x0a), "olga"), f.rotation(true))
	return append(records, f.epoch("a", 2))
}

// A bundle verifies from the founding root, from the present one and from those between, and says which it is.
func TestBundleOverRotations(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	first := f.root.Fingerprint()
	records := f.succession()
	b := f.bundle(records)
	b.Root = f.genesis.Root
	second := seal.Fingerprint(nth[*RootRotated](&tale{records}, 0).Root)
	for fingerprint, want := range map[string]string{
		first:                first + ": the founding root; 2 rotations lead to the present root " + f.root.Fingerprint(),
		second:               "an earlier root that was RETIRED",
		f.root.Fingerprint(): "the present root, after 2 rotations from the founding root " + first,
	} {
		r := Verify(b.Encode(), fingerprint, noon.Add(time.Hour))
		i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == "root" })
		if !r.OK || !strings.Contains(r.Checks[i].Detail, want) {
			t.Errorf("%.8s: %+v, want %q", fingerprint, r, want)
		}
		if len(r.Roots) != 3 || r.Roots[0].Retired || !r.Roots[1].Retired || r.Roots[2].Retired {
			t.Errorf("roots: %+v", r.Roots)
		}
		if want := []string{fmt.Sprintf("%x", dig(0x0b)), fmt.Sprintf("%x", dig(0x0c))}; !slices.Equal(r.Officers, want) {
			t.Errorf("officers: %v", r.Officers)
		}
	}
	if r := Verify(b.Encode(), strings.Repeat("0", 64), noon.Add(time.Hour)); r.OK {
		t.Error("another root is accepted")
	}
	for n := 1; n <= len(records); n++ { // every beginning, too
		if _, err := replay(encoded(records[:n])); err != nil {
			t.Errorf("the first %d records: %v", n, err)
		}
	}
}

// A forged rotation is found: cross certificate, root, coordinators, and every bit of the record.
func TestForgedSuccessionIsFound(t *testing.T) {
	rotated := nth[*RootRotated]
	renewed := nth[*CoordinatorRenewed]
	other := found(t, 2, "a", "b", "c")
	for _, c := range []struct {
		name   string
		change func(f *federation, s *tale)
		want   string
	}{
		{"cross certificate by another root", func(f *federation, s *tale) {
			next, err := seal.ParseRoot(rotated(s, 0).Root)
			if err != nil {
				t.Fatal(err)
			}
			rotated(s, 0).Cross, err = other.root.CertifySuccessor(next, noon)
			if err != nil {
				t.Fatal(err)
			}
		}, "the root was rotated: cross certificate: certificate is not of this federation"},
		{"another root", func(f *federation, s *tale) { rotated(s, 0).Root = other.root.Certificate().Raw }, "cross certificate is for another root"},
		{"of another root", func(f *federation, s *tale) { rotated(s, 1).Old = dig(1) }, "the root was rotated: the present root is"},
		{"the first again", func(f *federation, s *tale) { s.add(copyOf(rotated(s, 0))) }, "the root was rotated: the present root is"},
		{"a coordinator left out", func(f *federation, s *tale) { rotated(s, 0).Coordinators = rotated(s, 0).Coordinators[1:] }, "it does not certify exactly the coordinators [a b c]"},
		{"a coordinator with another key", func(f *federation, s *tale) {
			rotated(s, 1).Coordinators[0].Chain = f.certify(seal.RoleCoordinator, "a", f.keys["b"], month)
		}, "coordinator a: its certificate is of coordinator a, or for another key"},
		{"a coordinator with another issuing key", func(f *federation, s *tale) {
			rotated(s, 1).Coordinators[0].Issuer = rotated(s, 1).Coordinators[1].Issuer
		}, "coordinator a: its issuing certificate is for another key"},
		{"a coordinator with the old certificate", func(f *federation, s *tale) {
			rotated(s, 0).Coordinators[0].Chain = f.genesis.Coordinators[0].Chain
		}, "coordinator a: certificate is not of this federation"},
		{"later than its certificates", func(f *federation, s *tale) { rotated(s, 0).TimeMS = noon.Add(3 * month).UnixMilli() }, "expired or not valid yet"},
		{"unused token after the theft", func(f *federation, s *tale) { s.add(&Enrolled{"p", digest(9), "t-unused"}) }, "token t-unused, which was revoked"},
		{"renewed stranger", func(f *federation, s *tale) { renewed(s, 0).Name = "x" }, "coordinator x was certified anew, which is none"},
		{"renewed by the old root", func(f *federation, s *tale) {
			renewed(s, 0).Chain = f.genesis.Coordinators[1].Chain
		}, "coordinator b was certified anew: certificate is not of this federation"},
		{"renewed with what was before", func(f *federation, s *tale) {
			again := copyOf(renewed(s, 0))
			again.Certified = rotated(s, 0).Coordinators[1]
			s.insertAfter(renewed(s, 0), again)
		}, "certified anew with a certificate that was revoked"},
		{"officer nobody admitted", func(f *federation, s *tale) { nth[*OfficerAdmitted](s, 0).Key = dig(0x0d) }, "an officer was admitted: admission of officer olaf by the root: signature does not verify"},
		{"officer of another name", func(f *federation, s *tale) { nth[*OfficerAdmitted](s, 0).Name = "eve" }, "signature does not verify"},
		{"officer in the place of nobody", func(f *federation, s *tale) { nth[*OfficerAdmitted](s, 1).Replaces = dig(0x0d) }, "does not count, so it cannot be replaced"},
		{"officer twice", func(f *federation, s *tale) {
			s.insertAfter(nth[*OfficerAdmitted](s, 0), copyOf(nth[*OfficerAdmitted](s, 0)))
		}, "counts already"},
		{"pinned officer admitted again", func(f *federation, s *tale) { s.add(f.admits(dig(0x0a), [32]byte{}, "olga")) }, "was replaced, for good"},
		{"founding officers out of order", func(f *federation, s *tale) {
			nth[*Genesis](s, 0).Officers = [][32]byte{dig(2), dig(1)}
		}, "the officers' keys are not a sorted set"},
	} {
		f := found(t, 1, "a", "b", "c")
		s := &tale{f.succession()}
		c.change(f, s)
		if _, err := replay(encoded(s.records)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
		}
	}
}

// No bit of the new records can be turned without the history being unlawful, or its head no longer signed.
func TestFlippedBitsOfTheSuccession(t *testing.T) {
	t.Parallel()
	f := found(t, 1, "a", "b")
	records := f.succession()
	b := f.bundle(records)
	b.Root = f.genesis.Root
	if r := f.verify(b); !r.OK {
		t.Fatalf("%+v", r)
	}
	for i, r := range records {
		switch r.(type) {
		case *RootRotated, *CoordinatorRenewed, *OfficerAdmitted:
		default:
			continue
		}
		good := b.Records[i]
		for bit := 0; bit < 8*len(good); bit += 7 { // at least one in each byte, and in turn all places in a byte
			b.Records[i] = bytes.Clone(good)
			b.Records[i][bit/8] ^= 1 << (bit % 8)
			if _, err := replay(b.Records[:i+1]); err != nil {
				continue // unlawful, and so is the whole
			}
			if f.verify(b).OK {
				t.Fatalf("record %d (%v): bit %d flipped, and the bundle verifies", i, r.Kind(), bit)
			}
		}
		b.Records[i] = good
	}
}

// A genesis record without officers is written as it always was; officers stand at its end, and an empty list is refused.
func TestGenesisWithOfficers(t *testing.T) {
	g := &Genesis{Cluster: "shop", Root: []byte{1}, TimeMS: 1}
	plain := Encode(g)
	g.Officers = [][32]byte{dig(1), dig(2)}
	pinned := Encode(g)
	if !bytes.Equal(pinned[:len(plain)], plain) || len(pinned) != len(plain)+1+64 {
		t.Errorf("%x, without officers %x", pinned, plain)
	}
	got, err := Decode(pinned)
	if err != nil || !slices.Equal(got.(*Genesis).Officers, g.Officers) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Decode(append(bytes.Clone(plain), 0)); err == nil {
		t.Error("an empty list of officers was read")
	}
	for n := len(plain) + 1; n < len(pinned); n++ {
		if _, err := Decode(pinned[:n]); err == nil {
			t.Errorf("cut to %d bytes: it was read", n)
		}
	}
}
