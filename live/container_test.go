//go:build linux

package live_test

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// builder is buildah with a store of its own, without a daemon and without name spaces, which a container that runs
// this test may not be allowed.
type builder struct {
	t    *testing.T
	dir  string
	args []string
}

func newBuilder(t *testing.T) *builder {
	t.Helper()
	path, err := exec.LookPath("buildah")
	if err != nil {
		t.Skip("there is no buildah here; apt-get install buildah")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give files of the image to another user")
	}
	dir := t.TempDir()
	return &builder{t, dir, []string{path, "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}}
}

func (b *builder) command(args ...string) []string {
	return append(b.args[:len(b.args):len(b.args)], args...)
}

// run runs buildah and returns what it printed.
func (b *builder) run(args ...string) string {
	b.t.Helper()
	out, errs, code := run(".", os.Environ(), "", b.command(args...)...)
	if code != 0 {
		b.t.Fatalf("buildah %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return strings.TrimSpace(out)
}

// image builds the image as the Containerfile says, from the binary under test, and returns a container of it.
func (b *builder) image() string {
	b.t.Helper()
	file := "../deploy/container/Containerfile"
	context := filepath.Join(b.t.TempDir(), "build")
	said := regexp.MustCompile(`(?m)^#   install -d -m 0700 build/(\S+)$`).FindStringSubmatch(read(b.t, file))
	if said == nil {
		b.t.Fatal("the Containerfile does not say how its directory is made")
	}
	if err := os.MkdirAll(filepath.Join(context, said[1]), 0o700); err != nil {
		b.t.Fatal(err)
	}
	if out, err := exec.Command("cp", choir, filepath.Join(context, "choir")).CombinedOutput(); err != nil {
		b.t.Fatalf("copy: %v\n%s", err, out)
	}
	b.run("bud", "--isolation", "chroot", "--tag", "choir", "--file", file, context)
	container := b.run("from", "choir")
	b.t.Cleanup(func() { b.run("rm", container) })
	return container
}

// The image holds the binary and a directory for state, of a user that is not root, and says so.
func TestContainer(t *testing.T) {
	b := newBuilder(t)
	container := b.image()
	got := decode[struct {
		OCIv1 struct {
			Config struct {
				User       string
				Entrypoint []string
				Cmd        []string
				Volumes    map[string]struct{}
				StopSignal string
			}
		}
	}](t, b.run("inspect", "--type", "image", "choir")).OCIv1.Config
	if _, volume := got.Volumes["/var/lib/choir"]; got.User != "65532:65532" || strings.Join(got.Entrypoint, " ") != "/choir" || len(got.Cmd) > 0 ||
		!volume || len(got.Volumes) != 1 || got.StopSignal != "SIGTERM" {
		t.Errorf("the image's configuration: %+v", got)
	}
	root := b.run("mount", container)
	var files []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil || strings.Join(files, " ") != "/choir" {
		t.Errorf("the image holds %q, want /choir alone: %v", files, err)
	}
	info, err := os.Stat(filepath.Join(root, "var", "lib", "choir"))
	if err != nil || info.Mode().Perm() != 0o700 || info.Sys().(*syscall.Stat_t).Uid != 65532 {
		t.Errorf("the directory for state: %v, %v", info, err)
	}
	if out := b.run("run", "--isolation", "chroot", container, "--", "/choir", "version"); !strings.HasPrefix(out, "choir ") {
		t.Errorf("version says %q", out)
	}
}

// In the container, as its user, a coordinator founds a federation on its volume, which buildah makes as an
// engine makes a fresh one, and gets ready.
func TestContainerRuns(t *testing.T) {
	b := newBuilder(t)
	container := b.image()
	s := newSite(t)
	write(t, s.path("c1.yaml"), strings.Replace(read(t, s.path("c1.yaml")), "dir: c1", "dir: /var/lib/choir/c1", 1))
	write(t, s.path("pass"), passphrase+"\n")
	for _, name := range []string{"c1.yaml", "pass"} {
		if err := os.Chown(s.path(name), 65532, 65532); err != nil {
			t.Fatal(err)
		}
	}
	p := spawn(t, "container", s.dir, os.Environ(), b.command("run", "--isolation", "chroot",
		"--volume", s.path("c1.yaml")+":/etc/choir/c1.yaml:ro", "--volume", s.path("pass")+":/etc/choir/pass:ro", container, "--",
		"/choir", "coordinator", "--bootstrap", "--config", "/etc/choir/c1.yaml", "--context", "/var/lib/choir/context", "--operator", "ada",
		"--root-key", "/var/lib/choir/root.key", "--passphrase-file", "/etc/choir/pass")...)
	s.procs["c1"] = p
	eventually(t, 60*time.Second, "the coordinator in the container is ready", func() error {
		if !p.running() {
			return errEnded
		}
		code, body, err := s.health("c1", "/readyz")
		if err == nil && code != http.StatusOK {
			err = errors.New(body)
		}
		return err
	})
	log := find(t, b.dir, "raft.db")
	n := 0
	err := filepath.WalkDir(filepath.Dir(filepath.Dir(log)), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if n++; info.Sys().(*syscall.Stat_t).Uid != 65532 || info.Mode().IsRegular() && info.Mode().Perm() != 0o600 {
			t.Errorf("%s is of user %d with mode %s", path, info.Sys().(*syscall.Stat_t).Uid, info.Mode())
		}
		return nil
	})
	if err != nil || n < 8 {
		t.Errorf("%d files on the volume: %v", n, err)
	}
}

// find is the one file of a name below a directory.
func find(t *testing.T, dir, name string) string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == name {
			found = append(found, path)
		}
		return err
	})
	if err != nil || len(found) != 1 {
		t.Fatalf("%d files are called %s: %v", len(found), name, err)
	}
	return found[0]
}
