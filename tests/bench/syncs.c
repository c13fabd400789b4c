/* Preloaded into the daemon: stamps every fsync and fdatasync with CLOCK_MONOTONIC and may make each of them slower.
   The stamps go to a file that the measuring process maps: one 64-bit count, then pairs of begin and end. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MOST 1000000

struct record {
    _Atomic uint64_t count;
    struct { uint64_t begin_ns, end_ns; } sync[MOST];
};

static struct record *record;
static long delay_us;

static uint64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("BENCH_SYNCS"), *delay = getenv("BENCH_SYNC_DELAY_US");
    delay_us = delay ? atol(delay) : 0;
    if (!path) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof(struct record), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) record = mapped;
    close(fd);
}

static int stamped(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    uint64_t place = record ? atomic_fetch_add(&record->count, 1) : MOST;
    if (place < MOST) record->sync[place].begin_ns = now_ns();
    if (delay_us > 0) usleep((useconds_t)delay_us);
    int result = real(fd);
    if (place < MOST) record->sync[place].end_ns = now_ns();
    return result;
}

int fsync(int fd) { return stamped("fsync", fd); }
int fdatasync(int fd) { return stamped("fdatasync", fd); }
