package seal

import "testing"

func TestSignaturesAreOfTheirDomain(t *testing.T) {
	key := newKey(t)
	sig := Sign(key, "choir/a/v1", []byte("message"))
	if !Verify(public(key), "choir/a/v1", []byte("message"), sig) {
		t.Fatal("a signature does not verify")
	}
	for _, c := range []struct{ domain, msg string }{
		{"choir/b/v1", "message"}, {"choir/a/v1", "Message"}, {"choir/a/v1", ""}, {"", "message"},
		{"choir/a/v1m", "essage"}, {"choir/a/v", "1message"}, // the border between domain and message is signed
	} {
		if Verify(public(key), c.domain, []byte(c.msg), sig) {
			t.Errorf("verifies for %q %q", c.domain, c.msg)
		}
	}
	for bit := range len(sig) * 8 {
		bad := append([]byte(nil), sig...)
		bad[bit/8] ^= 1 << (bit % 8)
		if Verify(public(key), "choir/a/v1", []byte("message"), bad) {
			t.Fatalf("bit %d of the signature flipped: still verifies", bit)
		}
	}
	for _, bad := range [][]byte{nil, {}, sig[:63], append(sig[:64:64], 0)} {
		if Verify(public(key), "choir/a/v1", []byte("message"), bad) {
			t.Errorf("a signature of %d bytes verifies", len(bad))
		}
	}
	for _, bad := range [][]byte{nil, public(key)[:31], public(newKey(t)), make([]byte, 32)} {
		if Verify(bad, "choir/a/v1", []byte("message"), sig) {
			t.Errorf("verifies under key %x", bad)
		}
	}
}

func TestEnrolmentProof(t *testing.T) {
	key, other := newKey(t), newKey(t)
	proof := ProveEnrolment(key, "token", "node-1")
	if !VerifyEnrolment(public(key), "token", "node-1", proof) {
		t.Fatal("a proof does not verify")
	}
	if VerifyEnrolment(public(other), "token", "node-1", proof) || VerifyEnrolment(public(key), "tokenn", "ode-1", proof) ||
		VerifyEnrolment(public(key), "token", "node-2", proof) || VerifyEnrolment(nil, "token", "node-1", proof) {
		t.Error("a proof verifies for another request")
	}
}

func TestRenewalProof(t *testing.T) {
	key, other := newKey(t), newKey(t)
	proof := ProveRenewal(key, "shop", "node-1", 7)
	if !VerifyRenewal(public(key), "shop", "node-1", 7, proof) {
		t.Fatal("a proof does not verify")
	}
	if VerifyRenewal(public(other), "shop", "node-1", 7, proof) || VerifyRenewal(public(key), "shopn", "ode-1", 7, proof) ||
		VerifyRenewal(public(key), "shop", "node-1", 8, proof) || VerifyRenewal(public(key), "shop", "node-2", 7, proof) {
		t.Error("a proof verifies for another request")
	}
}
