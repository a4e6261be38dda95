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
// beside what Kubernetes sets, or a Slurm array. Without one it is all.
func scheduledShard(getenv func(string) string) (shard, error) {
	if index := getenv("JOB_COMPLETION_INDEX"); index != "" {
		of := getenv("JOB_COMPLETIONS")
		if of == "" {
			return shard{}, &usageError{"JOB_COMPLETION_INDEX is set, and JOB_COMPLETIONS is not: of how many shares?",
				"set it to the job's completions, as deploy/kubernetes/sweep.yaml does, or say --shard I/N"}
		}
		return parseShard(index+"/"+of, "JOB_COMPLETION_INDEX/JOB_COMPLETIONS")
	}
	id := getenv("SLURM_ARRAY_TASK_ID")
	if id == "" {
		return shard{0, 1, ""}, nil
	}
	of := getenv("SLURM_ARRAY_TASK_COUNT")
	if of == "" {
		return shard{}, &usageError{"SLURM_ARRAY_TASK_ID is set, and SLURM_ARRAY_TASK_COUNT is not: of how many shares?", "say --shard I/N"}
	}
	place, err := slurmPlace(id, getenv("SLURM_ARRAY_TASK_MIN"), getenv("SLURM_ARRAY_TASK_STEP"))
	if err != nil {
		return shard{}, err
	}
	return parseShard(fmt.Sprintf("%d/%s", place, of), "SLURM_ARRAY_TASK_ID of SLURM_ARRAY_TASK_COUNT")
}

// slurmPlace is a task's place in its array, from 0: arrays may begin anywhere and leave numbers out.
func slurmPlace(id, first, step string) (int, error) {
	var n [3]int
	for i, text := range []string{id, first, step} {
		if text == "" {
			continue // Slurm before version 17 says only the task's own number
		}
		var err error
		if n[i], err = strconv.Atoi(text); err != nil || n[i] < 0 {
			return 0, &usageError{fmt.Sprintf("SLURM_ARRAY_TASK_ID, _MIN and _STEP are %q, %q and %q, want numbers", id, first, step), "say --shard I/N"}
		}
	}
	return (n[0] - n[1]) / max(n[2], 1), nil
}
