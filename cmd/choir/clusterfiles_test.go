package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// indexedJob is what is looked at of deploy/kubernetes/sweep.yaml.
type indexedJob struct {
	Kind string
	Spec struct {
		CompletionMode           string `yaml:"completionMode"`
		Completions, Parallelism int
		Template                 struct {
			Spec struct {
				RestartPolicy                string `yaml:"restartPolicy"`
				AutomountServiceAccountToken *bool  `yaml:"automountServiceAccountToken"`

				SecurityContext struct {
					FSGroup        int                   `yaml:"fsGroup"`
					SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
				} `yaml:"securityContext"`
				Containers []struct {
					Args            []string
					Env             []struct{ Name, Value string }
					SecurityContext struct {
						AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
						RunAsNonRoot             bool  `yaml:"runAsNonRoot"`
						RunAsUser                int   `yaml:"runAsUser"`
						Capabilities             struct{ Drop []string }
					} `yaml:"securityContext"`
					VolumeMounts []struct {
						MountPath string `yaml:"mountPath"`
					} `yaml:"volumeMounts"`
				}
			}
		}
	}
}

// The job is one that a name space of the level restricted admits, as the user of the image, and tells its pods how many
// there are: Kubernetes tells them their own number alone. All pods together run the sweep.
func TestKubernetesSweep(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "kubernetes", "sweep.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var job indexedJob
	if err := yaml.Unmarshal(text, &job); err != nil {
		t.Fatal(err)
	}
	pod := job.Spec.Template.Spec
	if job.Kind != "Job" || job.Spec.CompletionMode != "Indexed" || pod.RestartPolicy != "Never" || len(pod.Containers) != 1 {
		t.Fatalf("%+v", job)
	}
	c := pod.Containers[0]
	if s := c.SecurityContext; pod.SecurityContext.SeccompProfile.Type != "RuntimeDefault" || pod.SecurityContext.FSGroup != s.RunAsUser || s.RunAsUser != 65532 ||
		!s.RunAsNonRoot || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("%+v, %+v", pod.SecurityContext, s)
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Error("the pods hold a token of the cluster")
	}
	if len(c.Env) != 1 || c.Env[0].Name != "JOB_COMPLETIONS" || c.Env[0].Value != strconv.Itoa(job.Spec.Completions) {
		t.Fatalf("environment %v of %d completions", c.Env, job.Spec.Completions)
	}
	args := slices.Clone(c.Args)
	at := slices.Index(args, "--out") + 1
	if at == 0 || len(c.VolumeMounts) != 1 || !strings.HasPrefix(args[at], c.VolumeMounts[0].MountPath+"/") {
		t.Fatalf("results go elsewhere than to the volume: %q, %v", args, c.VolumeMounts)
	}
	out := filepath.Join(t.TempDir(), "rates")
	args[at] = out
	sharesMakeAll(t, out, job.Spec.Completions, func(i int) *exec.Cmd {
		cmd := exec.Command("choir", strings.Split(shortened(t, strings.Join(args, "\x00"), "\x00"), "\x00")...)
		cmd.Env = append(os.Environ(), "JOB_COMPLETION_INDEX="+strconv.Itoa(i), c.Env[0].Name+"="+c.Env[0].Value)
		return cmd
	})
}

// All tasks of the array together run the sweep.
func TestSlurmSweep(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash here")
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "slurm", "sweep.sbatch"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^#SBATCH --array=(\d+)-(\d+)$`).FindStringSubmatch(string(text))
	if m == nil || !strings.HasPrefix(string(text), "#!/bin/bash\n#SBATCH") || !strings.Contains(string(text), "\n#SBATCH --requeue\n#SBATCH --open-mode=append\n") {
		t.Fatalf("no array that is requeued and keeps its logs in\n%s", text)
	}
	first, _ := strconv.Atoi(m[1])
	last, _ := strconv.Atoi(m[2])
	dir := t.TempDir()
	script, out := filepath.Join(dir, "sweep.sbatch"), filepath.Join(dir, "choir-rates")
	if err := os.WriteFile(script, []byte(shortened(t, string(text), " ")), 0o600); err != nil {
		t.Fatal(err)
	}
	sharesMakeAll(t, out, last-first+1, func(i int) *exec.Cmd {
		cmd := exec.Command(bash, script)
		cmd.Env = append(os.Environ(), "HOME="+dir, "SLURM_CPUS_PER_TASK=1", "SLURM_ARRAY_TASK_MIN="+m[1], "SLURM_ARRAY_TASK_MAX="+m[2], "SLURM_ARRAY_TASK_STEP=1",
			fmt.Sprintf("SLURM_ARRAY_TASK_COUNT=%d", last-first+1), fmt.Sprintf("SLURM_ARRAY_TASK_ID=%d", first+i))
		return cmd
	})
}

// shortened is a file's text with two seeds and one round in its sweep, whose words have that between them.
func shortened(t *testing.T, text, between string) string {
	t.Helper()
	long, short := "--seeds"+between+"0-9", "--seeds"+between+"0-1"+between+"--set"+between+"rounds=1"
	if strings.Count(text, long) != 1 {
		t.Fatalf("no sweep of ten seeds in\n%s", text)
	}
	return strings.Replace(text, long, short, 1)
}

// sharesMakeAll runs the shares of a sweep of 2·3 setups with two seeds. Each cell is run by one of them, one that is run again
// has nothing to do, and the report has them all.
func sharesMakeAll(t *testing.T, out string, shares int, command func(i int) *exec.Cmd) {
	t.Helper()
	cells := 0
	for i := range shares {
		said, err := command(i).CombinedOutput()
		if err != nil {
			t.Fatalf("share %d: %v\n%s", i, err, said)
		}
		var mine, all int
		if _, err := fmt.Sscanf(string(said), fmt.Sprintf("%d/%d: %%d of %%d cells", i, shares), &mine, &all); err != nil || all != 12 {
			t.Errorf("share %d of %d: %v\n%s", i, shares, err, said)
		}
		if cells += mine; len(results(t, out)) != cells {
			t.Errorf("after share %d there are %d results, want %d", i, len(results(t, out)), cells)
		}
	}
	before := results(t, out)
	if said, err := command(0).CombinedOutput(); err != nil || !reflect.DeepEqual(results(t, out), before) {
		t.Errorf("share 0, run again, runs cells again: %v\n%s", err, said)
	}
	report, err := exec.Command("choir", "simulate", "report", out, "-o", "json").Output()
	var found struct{ Setups []setupFound }
	if err := cmp.Or(err, json.Unmarshal(report, &found)); err != nil {
		t.Fatalf("%v\n%s", err, report)
	}
	for _, s := range found.Setups {
		if !slices.Equal(s.Seeds, []uint64{0, 1}) {
			t.Errorf("%s has seeds %v", s.Setup, s.Seeds)
		}
	}
	if len(found.Setups) != 6 || cells != 12 {
		t.Errorf("%d setups and %d cells, want 6 and 12", len(found.Setups), cells)
	}
}

// results are the cells' results in a directory, and when they were written.
func results(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*", "result.json"))
	if err != nil {
		t.Fatal(err)
	}
	when := map[string]int64{}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		when[path] = info.ModTime().UnixNano()
	}
	return when
}
