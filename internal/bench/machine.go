package bench

import (
	"bufio"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// Machine is what a figure is worth little without.
type Machine struct {
	CPU   string `json:"cpu"`
	Cores int    `json:"cores"`
	// Memory in bytes, 0 if it is not known.
	Memory     int64  `json:"memory_bytes,omitempty"`
	OS         string `json:"os"`
	Kernel     string `json:"kernel,omitempty"`
	Go         string `json:"go"`
	FileSystem string `json:"file_system,omitempty"`
	Durability string `json:"durability"`
}

func machine(dir string) Machine {
	m := Machine{Cores: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), FileSystem: fileSystem(dir),
		Durability: "fsync before every answer"}
	m.CPU = field("/proc/cpuinfo", "model name")
	if kb := strings.Fields(field("/proc/meminfo", "MemTotal")); len(kb) > 0 {
		for _, c := range kb[0] {
			m.Memory = m.Memory*10 + int64(c-'0')
		}
		m.Memory *= 1024
	}
	if out, err := exec.Command("uname", "-r").Output(); err == nil {
		m.Kernel = strings.TrimSpace(string(out))
	}
	return m
}

// field answers what a file of "name: value" lines says of a name, "" if nothing.
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if n, v, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(n) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
