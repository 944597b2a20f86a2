/* Preloaded into a program: its wall clock is the real one plus the nanoseconds in the file that TEST_WALL_CLOCK names,
 * at every call anew. The monotonic clocks, on which all waiting rests, stay as they are. libfaketime is not used: told to
 * leave the monotonic clock alone it fails absolute sleeps on it, which is how Python sleeps. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)

static const volatile int64_t *offset;

__attribute__((constructor)) static void open_file(void) {
    const char *name = getenv("TEST_WALL_CLOCK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED)
        abort(); /* a test that believes in a clock of its own must not run on the real one */
    close(file);
    offset = mapped;
}

static int64_t now(clockid_t id) {
    struct timespec real;
    syscall(SYS_clock_gettime, id, &real);
    return real.tv_sec * SECOND + real.tv_nsec + (offset ? *offset : 0);
}

int clock_gettime(clockid_t id, struct timespec *told) {
    if (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE)
        return (int)syscall(SYS_clock_gettime, id, told);
    int64_t at = now(id);
    told->tv_sec = at / SECOND;
    told->tv_nsec = at % SECOND;
    return 0;
}

int gettimeofday(struct timeval *restrict told, void *restrict zone) {
    (void)zone;
    int64_t at = now(CLOCK_REALTIME);
    told->tv_sec = at / SECOND;
    told->tv_usec = at % SECOND / 1000;
    return 0;
}

time_t time(time_t *told) {
    time_t at = now(CLOCK_REALTIME) / SECOND;
    if (told)
        *told = at;
    return at;
}
