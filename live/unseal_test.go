//go:build linux

package live_test

import (
	"os"
	"testing"
	"time"
)

// A node and a coordinator whose keys are sealed anew under a passphrase start with it, by themselves and in the memory
// that they have otherwise: what scrypt took is given back. So do those that get an identity as a credential.
func TestUnseal(t *testing.T) {
	t.Parallel()
	s := stopped(t)
	write(t, s.path("unseal.pass"), passphrase+"\n")
	for name, command := range map[string]string{"n1": "node", "c1": "coordinator"} {
		write(t, s.path(name+".yaml"), read(t, s.path(name+".yaml"))+"\nunseal: passphrase\npassphrase_file: unseal.pass\n")
		s.fails(s.again(name), "they are sealed by file, and the configuration says passphrase", "reseal")
		s.choir(command, "reseal", "--config", name+".yaml")
	}
	if err := os.Mkdir(s.path("credentials"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, command := range map[string]string{"n2": "node", "c2": "coordinator"} {
		write(t, s.path("credentials", name), read(t, s.path(name, "keys", "unseal.key")))
		write(t, s.path(name+".yaml"), read(t, s.path(name+".yaml"))+"\nunseal: systemd-credential\nunseal_credential: "+name+"\n")
		s.choir(command, "reseal", "--config", name+".yaml")
		if _, err := os.Stat(s.path(name, "keys", "unseal.key")); !os.IsNotExist(err) {
			t.Errorf("%s: unseal.key is still there: %v", name, err)
		}
	}
	s.startAll()
	for name, most := range map[string]int64{"n1": 50 << 20, "c1": 80 << 20} {
		if got := s.procs[name].memory(t); got > most {
			t.Errorf("%s holds %d MB after a start with a passphrase, want at most %d", name, got>>20, most>>20)
		} else {
			t.Logf("%s holds %d MB after a start with a passphrase", name, got>>20)
		}
	}
	s.submit("first", small(2))
	s.ended("first", 60*time.Second)
	s.exact("first")
}
