package main

import (
	"fmt"
	"strconv"
	"strings"
)

// shard is the share of a sweep that one machine runs: every of-th cell, beginning with the index-th.
type shard struct {
	index, of int
	from      string // where it was said
}

// mine reports whether the i-th cell belongs to it.
func (s shard) mine(i int) bool { return i%s.of == s.index }

// cells are those that belong to it.
func (s shard) cells(all []cell) (mine []cell) {
	for i, c := range all {
		if s.mine(i) {
			mine = append(mine, c)
		}
	}
	return mine
}

func (s shard) String() string { return fmt.Sprintf("%d/%d", s.index, s.of) }

// maxShards bounds how many shares there are.
const maxShards = 1 << 20

// parseShard reads I/N. I goes from 0 to N-1 as arrays of schedulers count, or from 1 to N: N is the same share as 0.
func parseShard(text, from string) (shard, error) {
	i, n, ok := strings.Cut(text, "/")
	index, err1 := strconv.Atoi(i)
	of, err2 := strconv.Atoi(n)
	if !ok || err1 != nil || err2 != nil || of < 1 || of > maxShards || index < 0 || index > of {
		return shard{}, &usageError{fmt.Sprintf("%s %.40q, want I/N with I from 0 to N-1, or from 1 to N", from, text), "such as --shard 0/4 to 3/4 on four machines"}
	}
	return shard{index % of, of, from}, nil
}

// scheduledShard is the share that a scheduler gave this process: a Kubernetes Indexed Job, whose file sets JOB_COMPLETIONS
// beside what Kubernetes sets, or a Slurm array. Without one it is all. Schedulers count from 0: a number past the last share
// would run another's cells once more, and its own would be nobody's.
func scheduledShard(getenv func(string) string) (shard, error) {
	switch {
	case getenv("JOB_COMPLETION_INDEX") != "":
		return kubernetesShard(getenv)
	case getenv("SLURM_ARRAY_TASK_ID") != "":
		return slurmShard(getenv)
	}
	return shard{0, 1, ""}, nil
}

func kubernetesShard(getenv func(string) string) (shard, error) {
	index, of := getenv("JOB_COMPLETION_INDEX"), getenv("JOB_COMPLETIONS")
	if of == "" {
		return shard{}, &usageError{"JOB_COMPLETION_INDEX is set, and JOB_COMPLETIONS is not: of how many shares?",
			"set it to the job's completions, as deploy/kubernetes/sweep.yaml does, or say --shard I/N"}
	}
	if index == of {
		return shard{}, &usageError{fmt.Sprintf("JOB_COMPLETION_INDEX is %s, and JOB_COMPLETIONS %s: the last share is %[1]s-1", index, of),
			"set JOB_COMPLETIONS to the job's completions"}
	}
	return parseShard(index+"/"+of, "JOB_COMPLETION_INDEX/JOB_COMPLETIONS")
}

// slurmShard is a task's place in its array. Arrays may begin anywhere and leave numbers out, by a step: where the numbers of
// others are is all that a task knows of them.
func slurmShard(getenv func(string) string) (shard, error) {
	const variable = "SLURM_ARRAY_TASK_"
	n := map[string]int{}
	for _, name := range []string{"ID", "COUNT", "MIN", "MAX", "STEP"} {
		text := getenv(variable + name)
		if text == "" {
			continue // Slurm before version 17 says only the task's own number
		}
		var err error
		if n[name], err = strconv.Atoi(text); err != nil || n[name] < 0 {
			return shard{}, &usageError{fmt.Sprintf("%s%s is %q, want a number", variable, name, text), "say --shard I/N"}
		}
	}
	of, step, past := n["COUNT"], max(n["STEP"], 1), n["ID"]-n["MIN"]
	cure := fmt.Sprintf("number the tasks without gaps, such as --array=0-%d, or say --shard I/N", max(of-1, 0))
	switch {
	case of == 0:
		return shard{}, &usageError{variable + "ID is set, and " + variable + "COUNT is not: of how many shares?", "say --shard I/N"}
	case getenv(variable+"MAX") != "" && (n["MAX"]-n["MIN"])/step+1 != of:
		return shard{}, &usageError{fmt.Sprintf("the array has gaps: %sMIN is %d, _MAX %d and _STEP %d, which would be %d tasks, and _COUNT is %d",
			variable, n["MIN"], n["MAX"], step, (n["MAX"]-n["MIN"])/step+1, of), cure}
	case past < 0 || past%step != 0 || past/step >= of:
		return shard{}, &usageError{fmt.Sprintf("%sID is %d, which is no place in an array whose _MIN is %d, _STEP %d and _COUNT %d", variable, n["ID"], n["MIN"], step, of), cure}
	}
	return parseShard(fmt.Sprintf("%d/%d", past/step, of), variable+"ID of "+variable+"COUNT")
}
